"""More events than anybody reads: who offers them, and the kernel side's own account of them."""
