#!/bin/busybox sh
# The guest's first process: sets the kernel up, records one trace for each scenario, leaves all of it as a tar archive
# on the first disk, and ends the machine.
#
# Contract: nothing here knows a kernel's structures; /lab/probes has the definitions of probes, made from the kernel's
# own type data. What could not be set up is noted in /out and reported by the converter. ceiling=N on the kernel's
# command line sets the flush ceiling.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs out /out
mount -t tracefs trace /sys/kernel/tracing
mount -t debugfs debug /sys/kernel/debug
exec 2>> /out/boot.log

TRACE=/sys/kernel/tracing
THP=/sys/kernel/mm/transparent_hugepage
CEILING=/sys/kernel/debug/x86/tlb_single_page_flush_ceiling

argument() {
  sed -n "s/^\(.* \)\{0,1\}$1=\([^ ]*\).*/\2/p" /proc/cmdline
}

# The memory of a process is charged to the cgroup it runs in, so scenarios that reclaim get one of their own.
set_up_memory() {
  # Khugepaged would collapse and flush behind the scenarios' backs.
  echo 600000000 > $THP/khugepaged/scan_sleep_millisecs
  # Classic LRU: what the simulator models and what kernels without LRU_GEN have.
  echo 0 > /sys/kernel/mm/lru_gen/enabled
  wanted=$(argument ceiling)
  [ -z "$wanted" ] || echo "$wanted" > $CEILING
  if [ -e /sys/block/zram0 ]; then
    echo 256M > /sys/block/zram0/disksize
    mkswap /dev/zram0 > /dev/null && swapon /dev/zram0 && echo zram > /out/swap
  fi
  mount -t cgroup2 cgroup /sys/fs/cgroup
  echo +memory > /sys/fs/cgroup/cgroup.subtree_control
  mkdir /sys/fs/cgroup/lab
}

set_up_disks() {
  while read -r module; do insmod "/lib/$module"; done < /lab/modules
  tries=0
  while [ ! -b /dev/vdb ] && [ $tries -lt 50 ]; do sleep 0.2; tries=$((tries + 1)); done
  if mount -t ext4 /dev/vdb /mnt; then
    echo ext4 > /out/work_fs
  else
    mount -t tmpfs work /mnt
    echo tmpfs > /out/work_fs
  fi
}

enable() { # EVENT [FILTER]
  [ -z "$2" ] || echo "$2" > "$TRACE/events/$1/filter"
  echo 1 > "$TRACE/events/$1/enable" || echo "event $1" >> /out/missing
}

set_up_trace() {
  while read -r probe; do
    echo "$probe" >> $TRACE/kprobe_events || echo "$probe" >> /out/missing
  done < /lab/probes
  echo 24576 > $TRACE/buffer_size_kb
  echo global > $TRACE/trace_clock
  echo 0 > $TRACE/options/overwrite # what does not fit is counted instead of what came first being lost
  echo 1 > $TRACE/options/record-tgid
  echo 0 > $TRACE/tracing_on
  enable lab
  enable tlb/tlb_flush
  enable raw_syscalls/sys_enter 'comm == "tlbw"'
  enable raw_syscalls/sys_exit 'comm == "tlbw"'
  enable exceptions/page_fault_user 'comm == "tlbw"'
  enable sched/sched_process_exit 'comm == "tlbw"'
  enable sched/sched_switch # of all tasks: an idle CPU that runs another program leaves the mask
}

setting() { # NAME FILE
  sed -n "s/^#! *$1=//p" "$2" | tail -n 1
}

record() { # SCENARIO
  name=$(basename "$1" .scn)
  out=/out/trace/$name
  thp=$(setting thp "$1")
  echo "${thp:-never}" > $THP/enabled
  group=/sys/fs/cgroup
  [ "$(setting memcg "$1")" != 1 ] || group=/sys/fs/cgroup/lab
  echo $$ > $group/cgroup.procs
  mkdir -p "/mnt/$name"
  echo > $TRACE/trace
  grep TLB /proc/interrupts > "$out.before"
  echo 1 > $TRACE/tracing_on
  timeout 240 tlbw "$1" $TRACE/trace_marker "/mnt/$name" > "$out.log" 2>&1
  status=$?
  sleep 0.3 # processes that are still being taken down
  echo 0 > $TRACE/tracing_on
  grep TLB /proc/interrupts > "$out.after"
  cat $TRACE/trace > "$out.txt"
  lost=$(cat $TRACE/per_cpu/cpu*/stats | awk '/overrun|dropped/ { n += $NF } END { print n + 0 }')
  echo "$status $lost" > "$out.status"
  echo "LAB $name: status $status, $(wc -l < "$out.txt") lines" > /dev/ttyS0
}

set_up_disks
set_up_memory
set_up_trace
uname -srvm > /out/uname
grep -m 1 flags /proc/cpuinfo > /out/cpu_flags
cat $CEILING > /out/ceiling
mkdir -p /out/trace
for scenario in /lab/scenarios/*.scn; do record "$scenario"; done
echo $$ > /sys/fs/cgroup/cgroup.procs
cat $TRACE/kprobe_profile > /out/kprobe_profile
dmesg > /out/dmesg
tar cf /dev/vda -C /out .
sync
echo "LAB done" > /dev/ttyS0
reboot -f
