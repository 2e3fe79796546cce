//! The x86 flush engine of Linux (`arch/x86/mm/tlb.c`): who must flush what, told by generations.
//!
//! An [`Engine`] owns the TLBs of all CPUs, what each CPU has loaded ([`CpuTlbState`], the kernel's `cpu_tlbstate`) and
//! what each mm contributes ([`MmContext`]). Requests to flush come in by the kernel's names; the engine decides which
//! CPUs are told (each one an IPI), what every CPU drops, and keeps a log of requests and of the kernel's own
//! `tlb_flush` tracepoints. How kernels differ is data: [`FlushRules`].
//!
//! Invariants, which `tests/flush_model.rs` holds against a shadow of every cached entry:
//! - `ctxs[slot].tlb_gen >= g` on a CPU means that it holds no entry that flush `g` of that mm asked to drop;
//! - when a flush returns, a CPU that runs the mm (loaded, not lazy) holds none of them; every other CPU compares
//!   generations before it uses its entries again;
//! - `mm_cpumask` holds every CPU that has the mm loaded, and under the eager rule no other.
//!
//! Not here: page tables and walks (the machine fills the TLBs), tasks, and costs. Requests may overlap
//! ([`FlushInProgress`]), but each of their parts is done at once, so memory barriers, `LOADED_MM_SWITCHING` and disabled
//! interrupts change nothing and do not occur. Neither do global
//! ASIDs with INVLPGB, page-table isolation, and paravirtual flushes.

mod calls;
mod context;
mod cpu_state;
mod engine;
mod in_progress;
mod lazy_mmu;
mod log;
mod logged_mask;
mod multi;
mod rules;
mod switch;
#[cfg(test)]
mod tests;

pub use calls::FlushCall;
pub use context::{INIT_MM, MmContext, MmId};
pub use cpu_state::{CpuTlbState, TlbContext};
pub use engine::{Engine, Initiator, LogMark, TLB_FLUSH_ALL};
pub use in_progress::FlushInProgress;
pub use log::{FlushCounters, FlushKind, FlushRequest, NO_REQUEST, TlbFlushEvent, TlbFlushReason};
pub use logged_mask::LoggedMask;
pub use rules::{FlushRules, LazyMmu, MmCpumaskRule, ShouldFlushTlb};
