# A job of many processes and files, as a build has them: run by sh, it needs nothing but the usual programs.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
seq 200 >source
n=0
while [ $n -lt 60 ]; do
    n=$((n + 1))
    mkdir "part$n"
    sed "s/1/$n/" source >"part$n/a.c"
    sort -r "part$n/a.c" >"part$n/b.c"
    cat "part$n/a.c" "part$n/b.c" | tr 1 2 >"part$n/all.c"
    sh -c "wc -l part$n/all.c; cp part$n/all.c part$n/all.o; mv part$n/all.o part$n/all"
    cmp -s "part$n/a.c" "part$n/b.c" || chmod 644 "part$n/all"
done
find . -name '*.c' -exec grep -l 22 {} + | xargs cat >linked
tar -czf packed.tar.gz part*
cp -r /usr/lib/python3.13/json /usr/lib/python3.13/email .
python3 -I -m compileall -q -f json email
