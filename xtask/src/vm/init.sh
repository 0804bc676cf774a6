#!/bin/busybox sh
# The first process of a virtual machine: makes the few things that a system
# has, runs /vm/job, and powers off.
#
# ttyS0 is the kernel's console, what the job prints goes to ttyS1, and ttyS2
# takes lines for the host: what the job writes to /vm/report, and "exit N" at
# the end.
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/bin:/bin HOME=/root TERM=dumb

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# Not a file system of its own: the programs may be below it.
chmod 1777 /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs security /sys/kernel/security
mount -t tracefs trace /sys/kernel/tracing

for port in 1 2; do
    stty -F /dev/ttyS$port raw -echo
done
while read -r module; do
    insmod "/vm/modules/$module" || echo "init: $module cannot be loaded" >/dev/ttyS1
done </vm/modules/list
ip link set lo up
hostname vm

mkfifo /vm/output
cat </vm/output >/dev/ttyS1 &
printer=$!
cd /root
: >/vm/report
sh /vm/job >/vm/output 2>&1 </dev/null
status=$?

# Whoever the job left behind still holds the output.
for process in /proc/[0-9]*; do
    process=${process#/proc/}
    case $process in
    1 | "$printer") ;;
    *) kill -9 "$process" ;;
    esac
done 2>/dev/null
wait "$printer"
# Closing a serial port waits until all is sent.
{
    cat /vm/report
    echo "exit $status"
} >/dev/ttyS2
poweroff -f
