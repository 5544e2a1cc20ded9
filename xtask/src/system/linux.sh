# What a Linux guest tells about its system, as lines `fact NAME VALUE`. The host compares; nothing is judged here but
# what only the guest can see.
fact() { echo "fact $*"; }
failed=0

mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null

fact cpus "$(nproc)"
fact features "$(cat /sys/hypervisor/properties/features 2>/dev/null)"
# On x86 the hardware domain asks for the machine's CPUs (platform_op).
fact physical-cpus "$(ls -d /sys/devices/system/xen_cpu/xen_cpu[0-9]* 2>/dev/null | wc -l)"
fact hypervisor "$(cat /sys/hypervisor/type 2>/dev/null)"
sed 's/^/fact iomem /' /proc/iomem
sed 's/^/fact ioport /' /proc/ioports

# Interrupts of every kind must be counted where the machine has them: timer on each CPU, and IPIs between CPUs.
before=$(cut -d' ' -f1 /proc/uptime)
sleep 1
fact slept "$before $(cut -d' ' -f1 /proc/uptime)"
# arm64 has one line for all CPUs, x86-64 one for each (Xen's timer) or one for all (the local APIC's).
fact timers "$(awk -v cpus="$(nproc)" '/arch_timer|^ *LOC:|xen.* timer[0-9]+$/ { for (i = 1; i <= cpus; i++) sum[i] += $(i + 1) }
    END { for (i = 1; i <= cpus; i++) printf "%d ", sum[i] }' /proc/interrupts)"

# A call of swiotlb-xen is counted, and so is each buffer that it bounces. Its function has one of two names; to look into
# /proc/kallsyms for which would take an emulated machine longer than all else here.
cd /sys/kernel/tracing
echo 'p:bounced swiotlb_tbl_map_single' >kprobe_events
for mapping in xen_swiotlb_map_page xen_swiotlb_map_phys; do
    echo "p:mapped $mapping" 2>/dev/null >>kprobe_events && break
done
echo 1 >events/kprobes/enable
cd /

# Disks: read what the host wrote, copy it to the second half for the host to read.
# By the bus in its path, since the order in which they are found varies. An NVMe disk's paths have no node.
disk() {
    for block in /sys/block/*; do
        case $(readlink -f "$block") in */"$1"*[0-9]/*) ls "/dev/${block##*/}" 2>/dev/null ;; esac
    done
}
for name in $DISKS; do
    for try in 1 2 3 4 5 6 7 8 9 10; do
        disk=$(disk "$name")
        [ -b "$disk" ] && break
        sleep 1
    done
    sum=$(dd "if=$disk" bs=64k count=32 iflag=direct 2>/dev/null | sha256sum)
    fact disk "$name ${sum%% *}"
    dd "if=$disk" "of=$disk" bs=64k count=32 seek=32 iflag=direct oflag=direct conv=notrunc 2>/dev/null || failed=1
done
sync

# Network: a file from QEMU's own TFTP server.
if [ -n "$NETWORK" ]; then
    ip link set eth0 up
    ip addr add 10.0.2.15/24 dev eth0
    sleep 1
    tftp -g -b 1428 -l /tmp/traffic -r traffic 10.0.2.2 || failed=1
    sum=$(sha256sum </tmp/traffic)
    fact network "${sum%% *}"
fi

# What needs more than a shell: a device that is told physical addresses, the balloon, each CPU's work.
[ -z "$CHECKS" ] || checker $CHECKS || failed=1

sed -n 's/^ *\([a-z]*\) *\([0-9]*\) .*/fact count \1 \2/p' /sys/kernel/tracing/kprobe_profile
sed -n '/nvme\|ahci\|virtio\|xhci\|eth0/s/^ */fact interrupt /p' /proc/interrupts
fact complaints "$(dmesg | grep -c -E 'WARNING: CPU:|BUG:|Oops|Call trace|Unhandled|soft lockup|rcu.*stall')"
dmesg | grep -E 'WARNING: CPU:|BUG:|Oops|Unhandled|soft lockup|rcu.*stall' | sed 's/^/fact complaint /'
exit $failed
