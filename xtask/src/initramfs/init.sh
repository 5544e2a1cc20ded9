#!/bin/sh
# The first program of a test system: prepares it, does /task, says how that ended, powers off.
export PATH=/bin HOME=/ TERM="${TERM:-vt100}" PS1='# '
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do
    insmod "/modules/$module.ko" || echo "terrane-guest: cannot load $module"
done
cd /
sh /task
echo "terrane-guest: status $?"
poweroff -f
