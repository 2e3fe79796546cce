//! What is known of one entry, in the form in which it is compared.

use crate::addr::PAGE_SIZE;

/// The lab's regions: `A` begins at the first address, each has 4 GiB. Other addresses are the runner's own.
const REGIONS: std::ops::Range<u64> = 0x1000_0000_0000..0x1000_0000_0000 + (26 << 32);

/// Whether an address lies in one of a scenario's regions.
pub(in crate::replay) fn in_region(addr: u64) -> bool {
    REGIONS.contains(&addr)
}

/// One call of `flush_tlb_mm_range`, with the arguments of the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AskedFlush {
    /// The first byte and the pages up to the end; none is everything.
    pub range: Option<(u64, u64)>,
    /// log2 of the stride in bytes.
    pub stride_shift: u32,
    /// Page tables were freed.
    pub freed_tables: bool,
}

impl AskedFlush {
    /// From the arguments of the call; none if the range lies outside every region.
    pub(super) fn new(start: u64, end: u64, stride_shift: u32, freed_tables: bool) -> Option<Self> {
        let range = if end == u64::MAX {
            None
        } else if in_region(start) {
            Some((start, end.saturating_sub(start) / PAGE_SIZE))
        } else {
            return None;
        };
        Some(Self { range, stride_shift, freed_tables })
    }

    /// As `region+page:pages:stride:freed`, or `ALL:-1:stride:freed`.
    pub fn text(&self) -> String {
        let (stride, freed) = (self.stride_shift, u8::from(self.freed_tables));
        let Some((start, pages)) = self.range else { return format!("ALL:-1:{stride}:{freed}") };
        let offset = start - REGIONS.start;
        let letter = char::from(b'A' + (offset >> 32) as u8);
        format!("{letter}+{}:{pages}:{stride}:{freed}", (offset & 0xffff_ffff) / PAGE_SIZE)
    }
}

/// One hit of the tracepoint `tlb:tlb_flush` that belongs to a request of the entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CpuFlush {
    /// Where.
    pub cpu: u16,
    /// Strides, -1 all.
    pub pages: i64,
    /// 0 left the address space, 1 remote shootdown, 2 local shootdown, 3 local mm shootdown.
    pub reason: u8,
}

/// The columns of one entry. Sets of CPUs are bits of CPUs 0-63; counts are calls.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Columns {
    /// Requests in the regions or of everything, in order.
    pub flush_list: Vec<AskedFlush>,
    /// Requests outside every region: the runner's own stack and data.
    pub noise_flushes: u64,
    /// Times that other CPUs were in the mask (`native_flush_tlb_multi`).
    pub ipi_sends: u64,
    /// Those other CPUs.
    pub mask_cpus: u64,
    /// Those of them that handled a request.
    pub ran_cpus: u64,
    /// Lazy CPUs that left the address space for one; may hold the entry's own CPU.
    pub lazy_left_cpus: u64,
    /// Flushes of the own CPU for one address space.
    pub local_flushes: u64,
    /// What each CPU flushed, sorted: the order in which others obey is chance.
    pub tlb_flush_list: Vec<CpuFlush>,
    /// Gathers opened.
    pub gathers: u64,
    /// Gathers ended.
    pub finishes: u64,
    /// Of these: with more than one operation pending.
    pub nested_finishes: u64,
    /// `tlb_flush_mmu` before the end of a gather.
    pub flush_mmu: u64,
    /// `arch_tlbbatch_flush`.
    pub batch_flushes: u64,
    /// `flush_tlb_batched_pending`.
    pub batch_pending_calls: u64,
    /// Of these: something was pending.
    pub batch_pending_set: u64,
    /// `ptep_clear_flush`.
    pub ptep_clear_flush: u64,
    /// `try_to_unmap_one`.
    pub unmap_one: u64,
    /// Page faults of user space.
    pub faults: u64,
}

/// A column in which two entries differ, both sides as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The column's name.
    pub column: &'static str,
    /// What the kernel did.
    pub recorded: String,
    /// What the model did.
    pub model: String,
}

impl Columns {
    /// CPUs of the masks that did not handle any request.
    pub const fn lazy_skipped_cpus(&self) -> u64 {
        self.mask_cpus & !self.ran_cpus
    }

    /// Name and text of each column, in a fixed order. Lists of CPUs are numbers with spaces between, others have `;`.
    pub fn texts(&self) -> Vec<(&'static str, String)> {
        let flushes: Vec<String> = self.flush_list.iter().map(AskedFlush::text).collect();
        let by_cpu: Vec<String> =
            self.tlb_flush_list.iter().map(|f| format!("{}:{}:{}", f.cpu, f.pages, f.reason)).collect();
        let number = |name, value: u64| (name, value.to_string());
        vec![
            number("flushes", self.flush_list.len() as u64),
            ("flush_list", flushes.join(";")),
            number("noise_flushes", self.noise_flushes),
            number("ipi_sends", self.ipi_sends),
            ("mask_cpus", cpus_text(self.mask_cpus)),
            ("ran_cpus", cpus_text(self.ran_cpus)),
            ("lazy_left_cpus", cpus_text(self.lazy_left_cpus)),
            ("lazy_skipped_cpus", cpus_text(self.lazy_skipped_cpus())),
            number("local_flushes", self.local_flushes),
            ("tlb_flush_list", by_cpu.join(";")),
            number("gathers", self.gathers),
            number("finishes", self.finishes),
            number("nested_finishes", self.nested_finishes),
            number("flush_mmu", self.flush_mmu),
            number("batch_flushes", self.batch_flushes),
            number("batch_pending_calls", self.batch_pending_calls),
            number("batch_pending_set", self.batch_pending_set),
            number("ptep_clear_flush", self.ptep_clear_flush),
            number("unmap_one", self.unmap_one),
            number("faults", self.faults),
        ]
    }

    /// The columns in which a model's entry differs from this recorded one.
    pub fn differences(&self, model: &Self) -> Vec<Difference> {
        if self == model {
            return Vec::new();
        }
        let pairs = self.texts().into_iter().zip(model.texts());
        pairs
            .filter(|((_, recorded), (_, model))| recorded != model)
            .map(|((column, recorded), (_, model))| Difference { column, recorded, model })
            .collect()
    }
}

fn cpus_text(mask: u64) -> String {
    let cpus: Vec<String> = (0..64).filter(|cpu| mask >> cpu & 1 != 0).map(|cpu: u32| cpu.to_string()).collect();
    cpus.join(" ")
}
