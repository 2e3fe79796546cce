//! mremap: which of its branches the arguments take (mm/mremap.c).

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VaRange, VirtAddr};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::{Args, MremapArgs};
use super::super::operation::{Errno, Operation, Outcome};
use super::stage::Stage;

impl Machine {
    pub(super) fn mremap(&self, by: Initiator, mm: MmId, operation: &Operation) -> Result<Stage> {
        let args = match self.mremap_args(mm, operation)? {
            Ok(args) => args,
            Err(errno) => return Ok(Stage::Done(Outcome::Errno(errno))),
        };
        let frame_args = Args { range: args.old_range(), mremap: args, ..Args::default() };
        let frame = self.frame(ProgramName::Mremap, by, mm, frame_args)?;
        Ok(Stage::run(frame, Outcome::Value(if args.moves { args.new.0 } else { args.old.0 })))
    }

    fn mremap_args(&self, mm: MmId, operation: &Operation) -> Result<std::result::Result<MremapArgs, Errno>> {
        let Operation::Mremap { old, old_len, new_len, maymove, fixed, dontunmap, new, .. } = *operation else {
            return Ok(Err(Errno::Einval));
        };
        // mm/mremap.c:check_mremap_params, then the lookup of the old area.
        let makes_no_sense = !VirtAddr(old).is_aligned(PAGE_SHIFT)
            || old_len == 0
            || new_len == 0
            || new_len > self.user_end().0
            || (fixed || dontunmap) && !maymove;
        if makes_no_sense {
            return Ok(Err(Errno::Einval));
        }
        let new_len = VirtAddr(new_len).align_up(PAGE_SHIFT).0;
        let old_len = old_len.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
        if dontunmap && old_len != new_len {
            return Ok(Err(Errno::Einval));
        }
        let old_range = VaRange::new(VirtAddr(old), VirtAddr(old.saturating_add(old_len)));
        if fixed || dontunmap {
            match self.page_range(new, new_len, Errno::Einval) {
                Ok(range) if range.intersect(old_range).is_empty() => {}
                _ => return Ok(Err(Errno::Einval)),
            }
        }
        let vmas = &self.mm_ref(mm)?.vmas;
        let Some(vma) = vmas.lookup(old_range.start).filter(|vma| old_range.end <= vma.end) else {
            return Ok(Err(Errno::Efault));
        };
        let grows = new_len > old_len;
        if grows && vma.index_of(old_range.start).checked_add(new_len >> PAGE_SHIFT).is_none() {
            return Ok(Err(Errno::Einval));
        }
        let behind = VaRange::new(old_range.end, VirtAddr(old + new_len));
        let has_room = old_range.end == vma.end && behind.end <= self.user_end() && vmas.is_free(behind);
        let mut args = MremapArgs {
            old: VirtAddr(old),
            old_len,
            new: VirtAddr(old),
            new_len,
            moves: fixed || dontunmap,
            shrinks: new_len < old_len,
            grows_in_place: grows && !fixed && !dontunmap && has_room,
            unmaps_new: false,
            dontunmap,
        };
        if grows && !args.grows_in_place && !args.moves {
            if !maymove {
                return Ok(Err(Errno::Enomem));
            }
            args.moves = true;
        }
        if args.moves {
            let wanted = if fixed || dontunmap { new } else { 0 };
            match self.choose_range(mm, wanted, new_len, fixed)? {
                Ok(range) => args.new = range.start,
                Err(errno) => return Ok(Err(errno)),
            }
            args.unmaps_new = fixed && !vmas.is_free(args.new_range());
        }
        Ok(Ok(args))
    }
}
