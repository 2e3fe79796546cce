//! Many calls at once, for drivers that cross a language border: the same as one by one, with checked input.

use super::context::MmId;
use super::engine::{Engine, Initiator, TLB_FLUSH_ALL};
use crate::addr::{Levels, P4D_SHIFT, VirtAddr, Vpn};
use crate::cpumask::{CpuId, CpuMask};
use crate::error::{Error, Result};

/// A call of the engine as data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FlushCall {
    /// [`Engine::flush_tlb_mm_range`].
    MmRange {
        /// Who asks.
        by: Initiator,
        /// The mm.
        mm: MmId,
        /// The first byte.
        start: VirtAddr,
        /// The byte after the last, or [`TLB_FLUSH_ALL`].
        end: VirtAddr,
        /// log2 of the bytes from one invalidation to the next, 12 to 39.
        stride_shift: u32,
        /// Page tables were freed.
        freed_tables: bool,
        /// The time in nanoseconds.
        now_ns: u64,
    },
    /// [`Engine::arch_tlbbatch_flush`].
    Batch {
        /// Who asks.
        by: Initiator,
        /// The CPUs to reach, of the machine's width.
        mask: CpuMask,
    },
    /// [`Engine::lazy_mmu_drain`].
    LazyMmuDrain {
        /// Who asks.
        by: Initiator,
        /// The mm.
        mm: MmId,
        /// The pages.
        pages: Vec<Vpn>,
    },
    /// [`Engine::inc_tlb_gen`].
    IncTlbGen {
        /// The mm.
        mm: MmId,
    },
    /// [`Engine::switch_mm`].
    SwitchMm {
        /// The CPU.
        cpu: CpuId,
        /// The mm to load.
        mm: MmId,
    },
    /// [`Engine::enter_lazy_tlb`].
    EnterLazyTlb {
        /// The CPU.
        cpu: CpuId,
    },
}

impl Engine {
    /// Makes all calls in order. Nothing is done if one of them cannot be.
    ///
    /// # Errors
    /// Names the first call that has a CPU or mm that is not there, a dropped mm, an address outside user space, a range
    /// that ends before it starts, a stride out of bounds, or a mask of another width.
    pub fn execute(&mut self, calls: &[FlushCall]) -> Result<()> {
        for (at, call) in calls.iter().enumerate() {
            self.check_call(call).map_err(|error| Error::Value(format!("call {at}: {error}")))?;
        }
        for call in calls {
            self.execute_checked(call);
        }
        Ok(())
    }

    fn execute_checked(&mut self, call: &FlushCall) {
        match call {
            &FlushCall::MmRange { by, mm, start, end, stride_shift, freed_tables, now_ns } => {
                self.flush_tlb_mm_range(by, mm, start, end, stride_shift, freed_tables, now_ns);
            }
            FlushCall::Batch { by, mask } => self.arch_tlbbatch_flush(*by, &mut mask.clone()),
            FlushCall::LazyMmuDrain { by, mm, pages } => self.lazy_mmu_drain(*by, *mm, pages),
            FlushCall::IncTlbGen { mm } => {
                self.inc_tlb_gen(*mm);
            }
            FlushCall::SwitchMm { cpu, mm } => self.switch_mm(*cpu, *mm),
            FlushCall::EnterLazyTlb { cpu } => self.enter_lazy_tlb(*cpu),
        }
    }

    fn check_call(&self, call: &FlushCall) -> Result<()> {
        match call {
            FlushCall::MmRange { by, mm, start, end, stride_shift, .. } => {
                self.check_cpu(by.cpu)?;
                self.check_mm(*mm)?;
                if !(12..=P4D_SHIFT).contains(stride_shift) {
                    return Err(Error::Value(format!(
                        "stride_shift: found {stride_shift}, expected 12 to {P4D_SHIFT}"
                    )));
                }
                if start > end {
                    return Err(Error::Value(format!("range: found {start} to {end}, expected start at most end")));
                }
                Levels::Five.check(*start)?;
                if *end == TLB_FLUSH_ALL { Ok(()) } else { Levels::Five.check(*end) }
            }
            FlushCall::Batch { by, mask } => {
                self.check_cpu(by.cpu)?;
                if mask.nr_cpus() == self.nr_cpus() {
                    return Ok(());
                }
                Err(Error::Value(format!("mask: found {} CPUs, expected {}", mask.nr_cpus(), self.nr_cpus())))
            }
            FlushCall::LazyMmuDrain { by, mm, pages } => {
                self.check_cpu(by.cpu)?;
                self.check_mm(*mm)?;
                let last = Levels::Five.user_end().vpn().0 - 1;
                match pages.iter().find(|page| page.0 > last) {
                    Some(page) => Err(Error::Value(format!("page: found {:#x}, expected at most {last:#x}", page.0))),
                    None => Ok(()),
                }
            }
            FlushCall::IncTlbGen { mm } => self.check_mm(*mm),
            FlushCall::SwitchMm { cpu, mm } => self.check_cpu(*cpu).and_then(|()| self.check_mm(*mm)),
            FlushCall::EnterLazyTlb { cpu } => self.check_cpu(*cpu),
        }
    }

    /// A dropped mm is refused even while a lazy CPU has it loaded: a call before could be what frees it.
    fn check_mm(&self, mm: MmId) -> Result<()> {
        match self.contexts.get(mm.index()) {
            Some(Some(context)) if !context.is_dropped => Ok(()),
            Some(_) => Err(Error::Value(format!("mm: found {mm}, which was dropped"))),
            None => Err(Error::Value(format!("mm: found {mm}, expected at most {}", self.contexts.len() - 1))),
        }
    }
}
