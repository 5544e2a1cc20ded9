#!/bin/sh
# Stands in for QEMU in the tests of `terrane run`: gives a device tree when asked for one, or the
# description of a PC when it is to boot a hypervisor that captures, else plays the machine that
# $FAKE_MACHINE describes as a shell script.
set -e
tree="$FAKE_TREE"
dump=
capture=
container=
kernel=
drive=
while [ $# -gt 0 ]; do
    case "$1" in
        --version) echo "QEMU emulator version 0 (fake)"; exit 0 ;;
        -dtb|--dtb) tree="$2"; shift ;;
        dtb=*) tree="${1#dtb=}" ;;
        -initrd) container="$2"; shift ;;
        -kernel) kernel="$2"; shift ;;
        -drive) drive="$2"; shift ;;
        loader,file=*) container="${1#*file=}"; container="${container%%,*}" ;;
        -append) if [ "$2" = capture ]; then capture=yes; fi; shift ;;
        *dumpdtb=*) dump="${1##*dumpdtb=}" ;;
    esac
    shift
done
if [ -n "$dump" ]; then
    cp "$tree" "$dump"
    exit 0
fi
if [ -n "$capture" ]; then
    . "${FAKE_CAPTURE_MACHINE:-$(dirname "$0")/fake-capture.sh}"
    exit 0
fi
. "$FAKE_MACHINE"
