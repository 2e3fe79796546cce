//! Random operations for tests of the machine. Every test that uses it uses all of it.

use tlbcore::machine::{AccessKind, Advice, MachineConfig, Operation};
use tlbcore::program::Thp;

const BASE: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4096;
/// The kernels of the tests, resolved.
pub const KERNELS: [&str; 4] = [
    include_str!("../data/linux-5.10.json"),
    include_str!("../data/linux-6.1.json"),
    include_str!("../data/linux-6.18.json"),
    include_str!("../data/consolidated.json"),
];

/// A small generator (SplitMix64), so that a seed names a run for ever.
pub struct Draw(pub u64);

impl Draw {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    /// True once in so many times.
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// An address in 8 MiB, mostly near the borders of 2 MiB.
    fn addr(&mut self) -> u64 {
        if self.chance(3) {
            return BASE + self.below(2048) * PAGE;
        }
        BASE + self.below(5) * (2 << 20) + self.below(6) * PAGE
    }

    fn len(&mut self) -> u64 {
        match self.below(4) {
            0 => 2 << 20,
            1 => (1 + self.below(1100)) * PAGE,
            _ => (1 + self.below(12)) * PAGE,
        }
    }

    fn access_kind(&mut self) -> AccessKind {
        [AccessKind::Read, AccessKind::Write, AccessKind::Write, AccessKind::Exec][self.below(4) as usize]
    }

    fn places(&mut self) -> Vec<(u32, u64)> {
        (0..=self.below(40)).map(|_| (1 + self.below(3) as u32, self.addr())).collect()
    }

    fn advice(&mut self) -> Advice {
        use Advice as A;
        let all = [
            A::Dontneed,
            A::Free,
            A::Cold,
            A::Pageout,
            A::Hugepage,
            A::Nohugepage,
            A::Dontfork,
            A::Dofork,
            A::PopulateRead,
            A::PopulateWrite,
            A::Other,
        ];
        all[self.below(all.len() as u64) as usize]
    }
}

/// An operation of `task`, with `nr_tasks` to choose from.
pub fn draw_operation(draw: &mut Draw, task: u32, nr_tasks: u32) -> Operation {
    let (addr, len) = (draw.addr(), draw.len());
    match draw.below(34) {
        0..=3 => {
            let shared = draw.chance(2);
            let file = draw.chance(2).then(|| 1 + draw.below(2) as u32);
            Operation::Mmap {
                task,
                addr,
                len,
                prot: [0, 1, 3, 3, 3, 5, 7][draw.below(7) as usize],
                shared,
                fixed: !draw.chance(4),
                noreplace: draw.chance(5),
                populate: draw.chance(5),
                growsdown: !shared && draw.chance(12),
                file,
                pgoff: draw.below(64),
            }
        }
        4 | 5 => Operation::Munmap { task, addr, len },
        6 | 7 => Operation::Mprotect { task, addr, len, prot: [0, 1, 3, 3, 7][draw.below(5) as usize] },
        8 => Operation::Brk { task, addr: 0x5555_5580_0000 + draw.below(40) * 1500 },
        9 | 10 => {
            let fixed = draw.chance(2);
            let dontunmap = draw.chance(5);
            Operation::Mremap {
                task,
                old: addr,
                old_len: len,
                new_len: if dontunmap || draw.chance(2) { len } else { draw.len() },
                maymove: !draw.chance(6),
                fixed,
                dontunmap,
                new: if fixed { draw.addr() + (16 << 20) * draw.below(2) } else { 0 },
            }
        }
        11..=13 => Operation::Madvise { task, addr, len, advice: draw.advice() },
        14 => Operation::Msync { task, addr, len, sync: !draw.chance(4) },
        15 => Operation::Fsync { task, file: 1, from_page: 0, nr_pages: None },
        16 => Operation::Truncate {
            task,
            file: 1 + draw.below(2) as u32,
            from_page: draw.below(64),
            nr_pages: draw.chance(2).then_some(4),
        },
        17 => Operation::ClearRefs { task, kind: if draw.chance(2) { 1 } else { 4 } },
        18 | 19 => {
            Operation::Reclaim { task, pages: draw.places(), proactive: draw.chance(2), goes_on: draw.chance(3) }
        }
        20 => Operation::Migrate { task, pages: draw.places() },
        21 if draw.chance(2) => Operation::KsmMerge { task, addr, len },
        21 => Operation::NumaHint { task, addr, len },
        22 => Operation::WpSharedMappingRange {
            task,
            file: 1 + draw.below(2) as u32,
            from_page: draw.below(64),
            nr_pages: draw.below(64),
        },
        23 => Operation::Collapse { task, addr },
        24 => Operation::Schedule {
            cpu: draw.below(4) as u32,
            task: (!draw.chance(3)).then(|| draw.below(u64::from(nr_tasks)) as u32),
        },
        25 if nr_tasks < 6 => Operation::Fork { task },
        26 if nr_tasks < 6 => Operation::CloneThread { task },
        27 => Operation::AdvanceTime { ns: draw.below(2_000_000_000) },
        28 if draw.chance(6) => Operation::Exec { task },
        _ => Operation::Access { task, addr, kind: draw.access_kind() },
    }
}

/// Machines with 4 and 5 levels, with and without PCID, huge pages and TLBs.
pub fn configurations() -> Vec<MachineConfig> {
    let base = MachineConfig::default();
    vec![
        base.clone(),
        MachineConfig { levels: 4, pcid: true, thp: Some(Thp::Always), ..base.clone() },
        MachineConfig { tlb_enabled: false, thp: Some(Thp::Madvise), ..base },
    ]
}
