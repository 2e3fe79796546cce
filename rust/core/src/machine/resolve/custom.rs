//! The operation `run`: a program of the caller's on a range. It is validated like a kernel's, and only then looked at
//! as a system call would be.

use std::sync::Arc;

use serde_json::Value;

use crate::addr::{PAGE_SHIFT, VaRange, VirtAddr};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::{Args, Frame};
use super::super::operation::{Errno, Outcome};
use super::super::vma::VmFlags;
use super::stage::Stage;

impl Machine {
    /// Compiles a program; `range` is an address and a length in bytes.
    pub(super) fn run_custom(
        &self,
        by: Initiator,
        mm: MmId,
        (addr, len): (u64, u64),
        prot: Option<u32>,
        steps: &Value,
    ) -> Result<Stage> {
        let program = Arc::new(self.kernel.compile_custom(steps)?);
        let range = match self.page_range(addr, len, Errno::Enomem) {
            Ok(range) if len > 0 => range,
            Ok(_) => return Ok(Stage::Done(Outcome::Errno(Errno::Einval))),
            Err(errno) => return Ok(Stage::Done(Outcome::Errno(errno))),
        };
        let mut args = Args::default();
        args.take_range(range, prot);
        let mut frame = self.frame(ProgramName::Custom, by, mm, args)?;
        frame.custom = Some(program);
        Ok(Stage::run(frame, Outcome::None))
    }

    /// Other arguments for the rest of a program.
    pub(in super::super) fn select_range_at(frame: &mut Frame, addr: u64, len: u64, prot: Option<u32>) {
        let range = VaRange::new(VirtAddr(addr), VirtAddr(addr + len).align_up(PAGE_SHIFT));
        frame.args.take_range(range, prot);
        frame.r.range = range;
        frame.detached.clear();
        frame.walks_detached = false;
    }
}

impl Args {
    fn take_range(&mut self, range: VaRange, prot: Option<u32>) {
        self.range = range;
        self.keeps_rights = prot.is_none();
        self.prot = VmFlags::from_bits_truncate(prot.unwrap_or(0)) & VmFlags::ACCESS;
    }
}
