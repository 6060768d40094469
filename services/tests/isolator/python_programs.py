# ruff: noqa: E501 # a thought a line
"""Files of Python that must put out the same from a copy of the zygote as from a new Python.

Where a program takes arguments, variables or standard input, they stand in `GIVEN`.
"""

from __future__ import annotations

from typing import Any

GIVEN: dict[str, dict[str, Any]] = {
    "arguments": {"arguments": ["one", "", "two words", "grüß ✓", "--", "-c"]},
    "standard input": {"stdin": "first\nsecond\nüb€r\n\nlast without an end"},
    "binary standard input": {"stdin": "\0\x01 bytes"},
    "input()": {"stdin": "name\n"},
    "variables of the call": {"env": {"TZ": "Asia/Tokyo", "ODD": "a=b=c", "LC_ALL": "POSIX"}},
    "home": {"home": "write", "home_owner": 0},
}

PROGRAMS = {
    "nothing": "",
    "arguments": "import sys; print(sys.argv, sys.orig_argv, __file__, __name__)",
    "names": """
        import sys
        for name, value in globals().copy().items():
            print(name, type(value), value if type(value) in (str, dict, type(None)) else '')
        print(__loader__.name, __loader__.path, sys.modules['__main__'].__dict__ is globals())
        import __main__
        print(__main__.__name__, __main__.__file__, type(__builtins__))
    """,
    "environment": """
        import os, posix, subprocess
        print(sorted(os.environ.items()), sorted(posix.environ.items()), os.environb[b'HOME'], os.getenv('USER'))
        os.environ['NEW'] = 'is new'
        del os.environ['TERM']
        print(subprocess.run('env | sort', shell=True, capture_output=True, text=True).stdout)
    """,
    "variables of the call": """
        import os, sys, time, locale
        print(sorted(os.environ.items()), time.tzname, sys.stdout.encoding, sys.stdout.errors)
        print(locale.setlocale(locale.LC_CTYPE), sys.flags.utf8_mode)
    """,
    "settings": """
        import sys, locale, gc, warnings, faulthandler, time, os, signal
        print(sys.flags, sys.path, sys.executable, sys.prefix, sys.base_prefix, sys._xoptions, sys.warnoptions)
        print(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), locale.getencoding(), sys.pycache_prefix)
        print(locale.setlocale(locale.LC_ALL), locale.getlocale())
        print(gc.isenabled(), gc.get_threshold(), warnings.filters, faulthandler.is_enabled())
        print(sys.getswitchinterval(), sys.getrecursionlimit(), sys.int_info, sys.get_int_max_str_digits())
        print(time.tzname, time.timezone, time.localtime(0), time.ctime(0))
        print([(s, signal.getsignal(s)) for s in signal.valid_signals()], signal.pthread_sigmask(0, []))
        print(sys.gettrace(), sys.getprofile(), sys.excepthook, sys.displayhook, sys.unraisablehook)
        print(hasattr(sys, 'last_exc'), hasattr(sys, 'ps1'), sys.meta_path, len(sys.path_hooks))
    """,
    "streams": """
        import sys
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            raw = stream.buffer.raw
            print(stream, stream.mode, stream.name, stream.encoding, stream.errors, stream.line_buffering,
                  stream.write_through, stream.newlines, stream.seekable(), stream.isatty(), stream.fileno(),
                  raw, raw.name, raw.mode, raw.closefd, raw.seekable(), type(stream.buffer))
        print(sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__)
        print(sys.stdin._CHUNK_SIZE)
    """,
    "process": """
        import os, threading, resource
        print(os.getpid(), os.getppid(), os.getsid(0), os.getpgrp(), os.getcwd(), os.umask(0), os.getgroups())
        print(threading.main_thread().native_id, threading.current_thread(), threading.active_count())
        print(os.listdir('/proc/self/fd'), len(os.listdir('/proc/self/task')))
        print([resource.getrlimit(n) for n in range(16)], os.sched_getaffinity(0) == set(range(os.cpu_count())))
        print(open('/proc/self/cmdline').read().rstrip(chr(0)).split(chr(0)))
        print(os.readlink('/proc/self/exe'), os.readlink('/proc/self/cwd'), os.readlink('/proc/self/root'))
        print(os.access('/proc/self/mem', os.W_OK), open('/proc/self/oom_score_adj').read())
    """,
    "standard input": "import sys\nfor line in sys.stdin: print(repr(line))",
    "binary standard input": "import sys; print(sys.stdin.buffer.read(), sys.stdin.read())",
    "input()": "print(input('who? '))\nprint(input())",
    "home": """
        import os, pathlib
        print(os.getcwd(), pathlib.Path.home(), os.path.expanduser('~'))
        pathlib.Path('here').write_text('x')
        print(os.listdir('.'))
        os.unlink('here')
    """,
    "exit": "import sys; sys.exit()",
    "exit 3": "import sys; sys.exit(3)",
    "exit 256": "import sys; sys.exit(256)",
    "exit -1": "import sys; sys.exit(-1)",
    "exit 2**70": "import sys; sys.exit(2**70)",
    "exit True": "import sys; sys.exit(True)",
    "exit with words": "import sys; print('out'); sys.exit('words ü')",
    "exit with a list": "raise SystemExit([1, 'two'])",
    "exit with what cannot be shown": """
        class Odd:
            def __str__(self): raise ValueError('no')
        raise SystemExit(Odd())
    """,
    "exit of a kind of its own": """
        class Exit(SystemExit): pass
        raise Exit(5)
    """,
    "exit while an error is handled": "import sys\ntry: 1/0\nfinally: sys.exit(6)",
    "exit without standard error": "import sys; sys.stderr = None; sys.exit('words')",
    "os._exit": "import os; print('lost'); os._exit(4)",
    "exit in a thread": """
        import threading, sys
        thread = threading.Thread(target=sys.exit, args=(7,))
        thread.start(); thread.join(); print('on')
    """,
    "exception": """
        def inner(): raise ValueError('grüß')
        def outer():
            try: inner()
            except ValueError as error: raise KeyError('second') from error
        print('before')
        outer()
    """,
    "exception with a note and a group": """
        error = ValueError('one'); error.add_note('a note')
        raise ExceptionGroup('many', [error, TypeError('two')])
    """,
    "a name that is wrong": "import json\njson.dmups({})",
    "syntax error": "print('never')\nif True print(1)",
    "indentation error": "if True:\nprint(1)",
    "a null byte": "print('never')\\x00",
    "an encoding": "# coding: latin-1\nprint('\xe4', __file__)",
    "an encoding that nobody knows": "# coding: klingon\nprint(1)",
    "a byte order mark": "\ufeffprint('marked')",
    "a hook for exceptions": """
        import sys
        sys.excepthook = lambda kind, error, trace: print('hook', kind, error, trace.tb_lineno, trace.tb_frame.f_back)
        raise ValueError('x')
    """,
    "a hook that fails": """
        import sys
        def hook(*_): raise TypeError('in the hook')
        sys.excepthook = hook
        raise ValueError('x')
    """,
    "too deep": """
        def depth(n):
            try: return depth(n + 1)
            except RecursionError: return n
        print(depth(0))
        def forever(): forever()
        forever()
    """,
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "SIGINT": "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)",
    "SIGINT in a wait for threads": """
        import os, signal, threading, time
        def stop(): time.sleep(0.1); os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)
        threading.Thread(target=stop).start()
        print('waits', flush=True)
    """,
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "a handler of SIGTERM": """
        import os, signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
        os.kill(os.getpid(), signal.SIGTERM)
        print('never')
    """,
    "alarm": """
        import signal, time
        signal.signal(signal.SIGALRM, lambda number, frame: print('rings', number, frame.f_code.co_name))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(0.2)
    """,
    "abort": "import os; print('lost'); os.abort()",
    "SIGPIPE": """
        import os
        r, w = os.pipe(); os.close(r)
        try: os.write(w, b'x')
        except BrokenPipeError: print('broken')
        os.system("yes | head -1")
    """,
    "at the end": """
        import atexit, threading, time
        class Ends:
            def __init__(self, name): self.name = name
            def __del__(self): print('ends', self.name)
        one = Ends('global')
        def loop():
            cycle = Ends('cycle'); cycle.itself = cycle
        loop()
        atexit.register(print, 'atexit first')
        atexit.register(print, 'atexit second')
        def late(): time.sleep(0.1); print('thread')
        threading.Thread(target=late).start()
        print('end of file')
    """,
    "exception at the end": """
        import atexit
        def fail(): raise ValueError('at exit')
        atexit.register(fail)
    """,
    "exception in a thread": """
        import threading
        thread = threading.Thread(target=lambda: 1/0, name='worker'); thread.start(); thread.join(); print('on')
    """,
    "a daemon": """
        import threading, time
        def forever():
            while True: time.sleep(0.01)
        threading.Thread(target=forever, daemon=True).start()
        class Ends:
            def __del__(self): print('ended')
        ends = Ends()
        print('end of file')
    """,
    "files that nobody closes": """
        import io, os, json, logging, tempfile
        text = os.fdopen(os.dup(1), 'w'); text.write('text\\n')
        binary = os.fdopen(os.dup(1), 'wb'); binary.write(b'binary\\n')
        json.kept = os.fdopen(os.dup(1), 'w'); json.kept.write('held by a module of the library\\n')
        handler = logging.StreamHandler(os.fdopen(os.dup(1), 'w')); logging.getLogger().addHandler(handler)
        logging.warning('logged')
        print('printed')
    """,
    "standard output closed": "import sys; print('out'); sys.stdout.close()",
    "standard output that fails": "import os; print('lost'); os.close(1)",
    "no standard output": "import sys; sys.stdout = None; print('lost')",
    "standard error that fails": "import os, sys; os.close(2); sys.stderr.write('lost')",
    "half a line": "import sys; sys.stdout.write('half'); sys.stderr.write('a line')",
    "the C library's output": "import ctypes; ctypes.CDLL(None).printf(b'by printf'); print('by print')",
    "unicode": "print('grüß ✓ 日本', '\\udcff', ascii('ä')); import sys; print('ü\\udcff', file=sys.stderr)",
    "bytes": "import sys; sys.stdout.buffer.write(bytes(range(128)))",
    "much output": "for i in range(20000): print('x' * 40)",
    "much output and an error": "import sys\nfor i in range(9000): print('x' * 40)\nsys.exit('end')",
    "threads": """
        import threading, queue
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool: print(list(pool.map(lambda n: n * n, range(20))))
        local = threading.local(); local.x = 1
        lock = threading.RLock()
        with lock, lock: print(local.x, threading.current_thread().name, threading.main_thread().is_alive())
    """,
    "children": """
        import os, subprocess, sys
        print(subprocess.run(['echo', 'child'], capture_output=True, text=True))
        print(subprocess.run([sys.executable, '-IS', '-c', 'print(1)'], capture_output=True).stdout)
        sys.stdout.flush()
        if os.fork() == 0:
            print('forked', os.getpid() != 2); sys.stdout.flush(); os._exit(0)
        print(os.wait()[1], subprocess.call('exit 3', shell=True))
        print(subprocess.run('trap', shell=True, capture_output=True), os.popen('ulimit -n').read())
    """,
    "multiprocessing": """
        import multiprocessing
        def square(n): return n * n
        if __name__ == '__main__':
            for method in ('fork', 'spawn'):
                with multiprocessing.get_context(method).Pool(2) as pool: print(method, pool.map(square, range(5)))
            print(multiprocessing.current_process().name, multiprocessing.get_start_method())
    """,
    "asyncio": """
        import asyncio
        async def main():
            process = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)
            print(await process.communicate())
            async with asyncio.timeout(5): await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(3)))
        asyncio.run(main())
    """,
    "another program": "import os; print('lost'); os.execv('/usr/bin/echo', ['echo', 'replaced'])",
    "nobody calls the file": """
        import inspect, sys, traceback, warnings
        print(len(inspect.stack()), sys._getframe().f_back, inspect.currentframe().f_code.co_name)
        def here(): traceback.print_stack()
        here()
        warnings.warn('careful', stacklevel=2)
        warnings.warn('deprecated', DeprecationWarning)
        try: sys._getframe(1)
        except ValueError as error: print(error)
        print(inspect.getsource(here), inspect.getmodule(here))
    """,
    "pickles": """
        import pickle, dataclasses
        @dataclasses.dataclass
        class Point: x: int = 1
        print(pickle.loads(pickle.dumps(Point(2))), Point.__module__)
    """,
    "the library": """
        import sqlite3, zipfile, gzip, decimal, hashlib, json, re, statistics, unicodedata, xml.etree.ElementTree as xml
        print(sqlite3.connect(':memory:').execute('select 6 * 7').fetchone(), hashlib.sha256(b'x').hexdigest())
        print(decimal.Decimal(1) / 7, decimal.getcontext(), statistics.median([1, 3, 2]), re.findall('a+', 'aab'))
        print(gzip.decompress(gzip.compress(b'x')), xml.fromstring('<a>b</a>').text, json.dumps({'ü': [1]}))
        print(unicodedata.name('ü'))
    """,
    "site": "import site, sys; site.main(); print(sys.path); print(exit, quit)\nimport msgspec\nexit(3)",
    "hooks of a fork": """
        import os, sys
        os.register_at_fork(before=lambda: print('before'), after_in_child=lambda: print('child'),
                            after_in_parent=lambda: print('parent'))
        sys.stdout.flush()
        if os.fork() == 0: sys.stdout.flush(); os._exit(0)
        os.wait()
    """,
    "imports of its own": """
        import sys, pathlib
        pathlib.Path('/tmp/mine.py').write_text('import atexit\\nprint("imported", __name__)\\n'
            'class Ends:\\n    def __del__(self): print("the module ends")\\nends = Ends()\\n')
        sys.path.append('/tmp')
        import mine
        from mine import ends
    """,
    "tracing": """
        import sys
        def trace(frame, event, argument): print(event, frame.f_code.co_name)
        sys.settrace(trace)
        def traced(): return 1
        traced()
    """,
}
