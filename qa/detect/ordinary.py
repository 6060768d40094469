"""An ordinary session: what a user asks the agent for, and what his tools then do with his approval."""

from __future__ import annotations

REQUESTS = [
    "how much memory is free?",
    "what time is it?",
    "how long has this machine been up?",
    "how busy is the cpu?",
    "how much disk space is left?",
    "list the files in /etc",
    "show me the running processes",
    "which services have failed?",
    "status of dbus",
    "show the last 5 lines of the log",
    "what is my ip address?",
    "which kernel version is this?",
    "what is 12 * 34?",
    "which disks are there?",
    "how big is /etc?",
    "who owns /etc/passwd?",
    "sha256 of /etc/hostname",
    "list the user accounts",
    "who is logged in?",
    "how long did booting take?",
]
"""Said to clawsh, one after another."""

CALLS: list[tuple[str, dict[str, str]]] = [
    ("directory.create", {"path": "notes"}),
    ("file.write", {"path": "notes/today", "text": "bread\nmilk\n"}),
    ("file.copy", {"from": "notes/today", "to": "notes/yesterday"}),
    ("file.read", {"path": "notes/today"}),
    ("file.search", {"path": "notes", "text": "milk"}),
    ("file.move", {"from": "notes/yesterday", "to": "notes/old"}),
    ("file.delete", {"path": "notes/old"}),
    ("shell.run", {"command": "ls -la; wc -l notes/*; sort notes/today | uniq -c"}),
    (
        "shell.run",
        {"command": "for n in 1 2 3 4 5; do seq $n 100 >notes/$n; done; cat notes/[1-5] | sort -n | tail -1"},
    ),
    ("shell.run", {"command": "tar -czf notes.tar.gz notes && tar -tzf notes.tar.gz && rm notes.tar.gz"}),
    (
        "shell.run",
        {"command": "printf '#!/bin/sh\\necho hi\\n' >hi.sh; chmod +x hi.sh; sh hi.sh; rm hi.sh"},
    ),
    ("shell.run", {"command": "find /usr/share/doc -name copyright | head -20 | xargs grep -l GPL | wc -l"}),
    ("shell.run", {"command": "awk -F: '{ print $7 }' /etc/passwd | sort | uniq -c | sort -rn"}),
    ("python.run", {"code": "import json; print(json.dumps({str(n): n * n for n in range(50)}))"}),
    (
        "python.run",
        {"code": "import pathlib; print(sum(p.stat().st_size for p in pathlib.Path('notes').iterdir()))"},
    ),
    (
        "python.run",
        {"code": "import subprocess; print(subprocess.run(['date'], capture_output=True, text=True).stdout)"},
    ),
    ("python.run", {"code": "import csv, io; print(list(csv.reader(io.StringIO('a,b\\n1,2\\n'))))"}),
]
"""Tools called by their manifests, after his yes."""

BUILD = """
set -eu
work=$(mktemp -d)
cd "$work"
for module in asyncio email json unittest; do cp -r /usr/lib/python3.13/$module .; done
python3 -I -m compileall -q -f asyncio email json unittest
n=0
for file in */*.py; do
    n=$((n + 1))
    sed 's/import/IMPORT/' "$file" >"$n.i"
    sh -c "sort $n.i | uniq -c >$n.s; wc -c <$n.s >$n.o"
    sha256sum "$n.o" >>sums
done
cat ./*.o >all.a
chmod 755 all.a
mkdir -p package/bin package/share
cp all.a package/bin/program
cp -r asyncio package/share
tar -czf package.tar.gz package
mkdir unpacked
tar -xzf package.tar.gz -C unpacked
diff -r package unpacked/package
cd /
rm -r "$work"
echo built
"""
"""A job of the size of a package: hundreds of programs and files, packed, unpacked and compared."""
