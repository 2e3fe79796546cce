//! The program that runs the lab's scenarios, as it stands when its first record is made.
//!
//! A recording begins when the runner has started, but its image is part of what the kernel flushes: fork copies its data,
//! exit walks its tables and finds its shared control block dirty, reclaim takes its pages. The runner is one static
//! program that is not position-independent, started without address randomization, so where `execve` and the C library
//! put things is the same in every run (fs/binfmt_elf.c, `mm/mmap.c:do_brk_flags`, arch/x86/entry/vdso). Which of its
//! pages were there already is told by the first fault of each: an error code with the present bit.

use rustc_hash::FxHashSet;

use super::columns::in_region;
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::machine::{AccessKind, AdoptKind, Operation, VmFlags};
use crate::replay::driver::Driver;
use crate::trace::lab::OWN_RUNNER;
use crate::trace::{Event, EventKind, FlushKind, Meta, Recording, RunnerImage};

/// The control block: `MAP_SHARED | MAP_ANONYMOUS`, cleared and so dirty before the first record.
const CONTROL: (u64, u64) = (0x2000_0000_0000, 0x2000_0000_5000);
/// Bytes from the control block's begin, in both runners: the step that runs, then for each step its entries that are not
/// done yet, four bytes each, and whom the next step calls (of the first actors, at least).
const CONTROL_TURN: u64 = 0;
const CONTROL_LEFT: u64 = 4;
const CONTROL_CALLED: u64 = 16_008;
/// Who ended the latest step: the runner that made the given recordings, and the one in this repository.
const CONTROL_FINISHER: [u64; 2] = [17_128, 16_004];
/// The image where a recording does not have it: of the runner that made the given recordings, and of the one in this
/// repository, which has room for fewer steps, as Debian's compiler of 2025 makes them. The heap lies behind the runner's bss.
const AREAS: [(u64, u64, &str); 4] = [
    (0x40_0000, 0x40_1000, "r"),
    (0x40_1000, 0x49_0000, "rx"),
    (0x49_0000, 0x4b_b000, "r"),
    (0x4b_b000, 0x4c_2000, "rw"),
];
const RELRO: (u64, u64) = (0x4b_b000, 0x4b_f000);
const HEAPS: [u64; 2] = [0x7f_d000, 0x78_0000];
/// Bytes of the heap: what its first `malloc` asks for, rounded up. The tokens of a scenario of some length reach the third
/// page.
const HEAP_BYTES: u64 = 0x2_3000;
const STACK_TOP: u64 = 0x7fff_ffff_f000;
const VDSO: u64 = 0x7fff_f7ff_d000;
const X86_PRESENT: u64 = 1;

/// The image of the runner that made a recording.
fn image(meta: &Meta) -> RunnerImage {
    let known = || RunnerImage {
        areas: AREAS.iter().map(|&(start, end, rights)| (start, end, rights.to_owned())).collect(),
        relro: RELRO,
        heap: HEAPS[usize::from(meta.counts.contains_key(OWN_RUNNER))],
    };
    meta.runner.clone().unwrap_or_else(known)
}

/// Whether an address lies in the runner's data that the C library wrote once and then protected (RELRO).
pub(in crate::replay) fn is_relro(meta: &Meta, addr: VirtAddr) -> bool {
    let (start, end) = meta.runner.as_ref().map_or(RELRO, |image| image.relro);
    (start..end).contains(&addr.0)
}

/// An area of the image: first byte, byte after the last, rights, whether it is of the program's file.
type Area = (u64, u64, VmFlags, bool);

/// The areas, by address. The data segment is split where the linker's read-only part ends (RELRO); the heap is an area
/// of its own, since the first `brk` does not extend the one before it. The kernel's data for the vDSO are one area, and
/// two since 6.13, the second for virtual clocks (arch/x86/entry/vdso/vma.c:`map_vdso`).
fn areas(image: &RunnerImage, has_vclock_area: bool) -> Vec<Area> {
    let (data, vclock) = if has_vclock_area { (6, 2) } else { (4, 0) };
    let vclock_start = VDSO - vclock * PAGE_SIZE;
    let (r, rw, rx) = (VmFlags::READ, VmFlags::READ | VmFlags::WRITE, VmFlags::READ | VmFlags::EXEC);
    let (relro_start, relro_end) = image.relro;
    let mut areas = Vec::new();
    for (start, end, rights) in &image.areas {
        let letters = [('r', VmFlags::READ), ('w', VmFlags::WRITE), ('x', VmFlags::EXEC)];
        let has = letters.into_iter().filter(|(letter, _)| rights.contains(*letter));
        let flags = has.fold(VmFlags::empty(), |flags, (_, flag)| flags | flag);
        if (*start..*end).contains(&relro_start) {
            areas.extend([(*start, relro_start, flags, true), (relro_start, relro_end, r, true)]);
            areas.push((relro_end, *end, flags, true));
        } else {
            areas.push((*start, *end, flags, true));
        }
    }
    let end_of_file = image.areas.iter().map(|area| area.1).max().unwrap_or(image.heap);
    areas.extend([
        (end_of_file, image.heap, rw, false),
        (image.heap, image.heap + HEAP_BYTES, rw, false),
        (VDSO - data * PAGE_SIZE, vclock_start, r | VmFlags::PFNMAP, true),
        (vclock_start, VDSO, r | VmFlags::PFNMAP, true),
        (VDSO, VDSO + 2 * PAGE_SIZE, rx, true),
        (STACK_TOP - 0x2_1000, STACK_TOP, rw | VmFlags::GROWSDOWN, false),
    ]);
    areas.retain(|(start, end, ..)| start < end);
    areas
}

/// Whether the kernel that a recording names is this or a later one: `Linux 6.18.9+deb13-amd64 ...`.
pub(in crate::replay) fn is_since(kernel: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    numbers.next().zip(numbers.next()).is_some_and(|found| found >= wanted)
}

/// Pages of the runner whose first fault in the recording found them present.
fn present_before(recording: &Recording) -> Vec<u64> {
    let mut seen = FxHashSet::default();
    let mut present = Vec::new();
    for row in 0..recording.events.len() {
        let event = recording.events.get(row);
        let page = event.a0 & !(PAGE_SIZE - 1);
        if event.kind() == EventKind::Fault && !in_region(page) && seen.insert(page) && event.a1 & X86_PRESENT != 0 {
            present.push(page);
        }
    }
    present
}

/// CPUs that stand in the mask of the recording's first address space when it is first recorded, although none of its
/// threads ran there since the beginning: they ran it before, and are lazy.
fn lazy_before(recording: &Recording, pid: u32) -> Vec<u16> {
    let flushes = &recording.flushes;
    let first =
        (0..flushes.len()).find(|&row| flushes.kind[row] == FlushKind::MmRange.number() && flushes.mm[row] == 0);
    let Some(first) = first else { return Vec::new() };
    let of_process = |task: u64| {
        let index = usize::try_from(task).unwrap_or(usize::MAX);
        recording.tasks.get(index).is_some_and(|task| task.pid == pid)
    };
    let until = flushes.time_ns[first];
    let events = (0..recording.events.len()).map(|row| recording.events.get(row));
    let was_here: FxHashSet<u16> = events
        .take_while(|event| event.time_ns <= until)
        .filter(|event| match event.kind() {
            EventKind::Switch => of_process(event.a0) || of_process(event.task.into()),
            _ => of_process(event.task.into()),
        })
        .map(|event| event.cpu)
        .collect();
    (0..64).filter(|cpu| flushes.mask[first] >> cpu & 1 != 0 && !was_here.contains(cpu)).collect()
}

impl Driver<'_> {
    /// Gives the first process its image and the CPUs that ran it before. It runs.
    pub(in crate::replay) fn adopt_runner(&mut self, index: u32, task: u32) -> Result<()> {
        let mm = self.machine.task_mm(task)?;
        let program = self.new_file(None)?;
        let image = image(&self.recording.meta);
        let heap = image.heap;
        let has_vclock_area = is_since(self.recording.meta.kernel.as_deref().unwrap_or_default(), (6, 13));
        for (start, end, flags, of_file) in areas(&image, has_vclock_area) {
            let file = of_file.then_some(program);
            let pgoff = if of_file { (start >> 12) & 0xfff } else { start >> 12 };
            self.machine.adopt_vma(mm, VirtAddr(start), VirtAddr(end), flags, file, pgoff)?;
        }
        self.expect_done(&Operation::Mmap {
            task,
            addr: CONTROL.0,
            len: CONTROL.1 - CONTROL.0,
            prot: 3,
            shared: true,
            fixed: true,
            noreplace: false,
            populate: false,
            growsdown: false,
            file: None,
            pgoff: 0,
        })?;
        let control = (CONTROL.0..CONTROL.1).step_by(PAGE_SIZE as usize);
        // The first pages of the data and of the bss, the last one of the bss, and what the C library has on heap and stack.
        let end_of_file = image.areas.iter().map(|area| area.1).max().unwrap_or(heap);
        let known = [image.relro.1, end_of_file, heap - PAGE_SIZE, heap, heap + 3 * PAGE_SIZE, STACK_TOP - PAGE_SIZE];
        let written: Vec<u64> = control.chain(known).chain(present_before(self.recording)).collect();
        for addr in written {
            if self.machine.allows(mm, VirtAddr(addr), AccessKind::Write) {
                self.run(&Operation::Access { task, addr, kind: AccessKind::Write })?;
            }
        }
        self.machine.adopt_page(mm, VirtAddr(image.relro.0), AdoptKind::AnonProtected)?;
        let of_text = image.areas.iter().filter(|(.., rights)| !rights.contains('w')).map(|area| area.0);
        for text in of_text.chain([VDSO]) {
            self.machine.adopt_page(mm, VirtAddr(text), AdoptKind::FileReadOnly)?;
        }
        for cpu in lazy_before(self.recording, self.recording.tasks[index as usize].pid) {
            self.note("CPU found in mm_cpumask from before the recording");
            let visitor = self.id(&Operation::CloneThread { task })?;
            for next in [Some(visitor), None] {
                self.run(&Operation::Schedule { cpu: cpu.into(), task: next })?;
            }
            self.run(&Operation::Exit { task: visitor })?;
        }
        // All that was long before.
        self.machine.lru_add_drain_all();
        self.rseq.has_block(index, heap);
        self.note("the lab's runner: image taken over");
        self.discard_log();
        Ok(())
    }

    /// A child that was forked with CLONE_CHILD_SETTID writes its id when it first runs (kernel/sched/core.c:
    /// `schedule_tail`), in kernel mode, so that the lab has no record of
    /// the fault. What it flushes belongs to no operation.
    pub(in crate::replay) fn write_child_tid(&mut self, task: u32, addr: u64) -> Result<()> {
        self.book();
        self.run(&Operation::Access { task, addr, kind: AccessKind::Write })?;
        self.discard_log();
        Ok(())
    }

    /// After each step the runner counts on in its control block, mostly without a fault.
    pub(in crate::replay) fn count_step(&mut self, event: &Event) -> Result<()> {
        let Some(task) = self.tasks.alive(event.task).filter(|task| self.machine.running_on(*task).is_some()) else {
            return Ok(());
        };
        let mm = self.machine.task_mm(task)?;
        let finisher = CONTROL_FINISHER[usize::from(self.recording.meta.counts.contains_key(OWN_RUNNER))];
        for offset in [CONTROL_LEFT + 4 * event.a0, finisher, CONTROL_TURN, CONTROL_CALLED] {
            let addr = CONTROL.0 + offset;
            if self.is_writable_now(mm, addr) {
                self.run(&Operation::Access { task, addr, kind: AccessKind::Write })?;
            }
        }
        Ok(())
    }

    fn is_writable_now(&self, mm: MmId, addr: u64) -> bool {
        self.machine.leaf(mm, VirtAddr(addr)).is_some_and(|(pte, _)| pte.is_hw_present() && pte.write())
    }
}
