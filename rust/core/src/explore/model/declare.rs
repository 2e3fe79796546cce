//! Which variables a scenario has, and how many bits each takes.

use crate::explore::scenario::World;
use crate::program::ProgramName;

use super::engine::last_step;
use super::invariant::Invariant;
use super::op::OpIndex;
use super::vars::{Local, Var, Vars, bits_for};
use super::{pte, tables};

/// The variables that the hardware and the invariants look at.
pub(super) fn declare(world: &World, slots: &[(u8, u8)], can_be_freed: &[bool], checked: u32, vars: &mut Vars) {
    let asks = |invariant: Invariant| checked & invariant.bit() != 0;
    tables::declare(world, vars);
    for cpu in 0..world.users {
        for slot in 0..slots.len() as u8 {
            vars.read(Var::Tlb(cpu, slot));
        }
    }
    if world.engine.is_detailed() {
        declare_engine(world, checked, vars);
    }
    for page in 0..world.pages.len() as u8 {
        vars.read(Var::Pte(page));
        if asks(Invariant::UnmapSync) {
            vars.read(Var::Unmapped(page));
        }
        if asks(Invariant::WpSync) {
            vars.read(Var::Protected(page));
        }
    }
    for frame in 0..world.frames.len() as u8 {
        if asks(Invariant::NoUseAfterFree) && can_be_freed[usize::from(frame)] {
            vars.read(Var::Refs(frame));
        }
        if world.frames[usize::from(frame)].is_spare {
            vars.read(Var::Refs(frame));
        }
        if asks(Invariant::NoLostWrite) {
            vars.read(Var::Newer(frame));
            vars.read(Var::Dirty(frame));
        }
        if asks(Invariant::RmapLife) {
            vars.read(Var::Mapcount(frame));
            if world.whole_tables {
                let parts = (0..world.vmas.len() as u8).flat_map(|vma| world.parts_of_vma(vma));
                parts.for_each(|part| _ = vars.read(Var::Unlinked(part)));
            }
        }
        let copies = world.frames.iter().any(|frame| frame.is_spare)
            || world
                .threads
                .iter()
                .any(|thread| matches!(thread.program, ProgramName::KsmMerge | ProgramName::CollapseHugePage));
        if asks(Invariant::StableCopy) && copies {
            vars.read(Var::Late(frame));
        }
        if world.threads.iter().any(|thread| thread.program == ProgramName::MadviseFree) {
            vars.read(Var::Lazyfree(frame));
            vars.read(Var::Kept(frame));
            vars.read(Var::Freer(frame));
        }
    }
    for (index, thread) in world.threads.iter().enumerate() {
        let of = index as u8;
        vars.read(Var::Thread(of, Local::Pc));
        let promises = !matches!(
            thread.program,
            ProgramName::Fault
                | ProgramName::Custom
                | ProgramName::CollapseHugePage
                | ProgramName::ShrinkFolioList
                | ProgramName::MigratePages
                | ProgramName::ChangeProtNuma
                | ProgramName::MadviseCold
                | ProgramName::MadviseFree
                | ProgramName::MadvisePageout
        );
        if promises && (asks(Invariant::UnmapSync) || asks(Invariant::WpSync)) {
            vars.read(Var::Thread(of, Local::Visited));
        }
        if asks(Invariant::NoLostWrite) {
            vars.read(Var::Thread(of, Local::Hold));
            if matches!(
                thread.program,
                ProgramName::PageMkclean | ProgramName::ShrinkFolioList | ProgramName::MadvisePageout
            ) {
                vars.read(Var::Thread(of, Local::Writing));
            }
        }
        let copies = matches!(
            thread.program,
            ProgramName::Fault | ProgramName::MigratePages | ProgramName::KsmMerge | ProgramName::CollapseHugePage
        );
        if asks(Invariant::StableCopy) && copies {
            vars.read(Var::Thread(of, Local::Copying));
        }
    }
    if asks(Invariant::UnmapSync) || asks(Invariant::StableCopy) || asks(Invariant::OneFrame) || world.whole_tables {
        vars.read(Var::Seen);
    }
}

/// The variables of the flush engine.
fn declare_engine(world: &World, checked: u32, vars: &mut Vars) {
    let asks = |invariant: Invariant| checked & invariant.bit() != 0;
    let has_gens = !world.engine.by_active_mm;
    for cpu in 0..world.users {
        for var in [Var::CpuStep(cpu), Var::LoadedMm(cpu), Var::Cr3(cpu), Var::CpuGen(cpu), Var::CpuNote(cpu)] {
            vars.read(var);
        }
        vars.read(Var::InMask(cpu));
        if world.engine.lazy {
            vars.read(Var::IsLazy(cpu));
        }
        if !has_gens {
            vars.read(Var::Missed(cpu));
        }
    }
    if has_gens {
        vars.read(Var::TlbGen(0));
        if asks(Invariant::Coverage) {
            vars.read(Var::FlushedGen);
        }
        if asks(Invariant::GenSound) {
            for page in (0..world.pages.len() as u8).filter(|page| world.pages[usize::from(*page)].mm == 0) {
                vars.read(Var::PageGen(page));
            }
        }
    }
}

/// How many bits a variable takes.
pub(super) fn width(
    var: Var,
    world: &World,
    slots: &[(u8, u8)],
    waiting: &[Vec<OpIndex>],
    nr_batched: u64,
    nr_gens: u64,
) -> u32 {
    let nr_threads = world.threads.len() as u64;
    let nr_pages = world.pages.len() as u32;
    let nr_frames = world.frames.len();
    let mappings = |frame: u8| world.pages.iter().filter(|page| page.frames.contains(&frame)).count() as u64;
    let frame_name = bits_for(nr_frames as u64);
    if let Some(bits) = tables::width(var, world) {
        return bits;
    }
    match var {
        Var::Pte(_) => pte::width(nr_frames),
        Var::Tlb(..) => 3,
        Var::Seen => {
            if world.whole_tables {
                5
            } else {
                3
            }
        }
        // A mapping more while an entry moves; references of caches, lists and threads too.
        Var::Mapcount(frame) => bits_for(mappings(frame) + nr_threads),
        Var::Refs(frame) => bits_for(mappings(frame) + 2 + 2 * nr_threads),
        Var::Copied(_)
        | Var::MmapReaders(_)
        | Var::VmaReaders(_)
        | Var::RmapReaders
        | Var::FlushPending(_)
        | Var::Freer(_) => bits_for(nr_threads),
        Var::BatchPending(_) | Var::BatchFlushed(_) => bits_for(nr_batched),
        Var::TlbGen(_)
        | Var::GenCompleted(_)
        | Var::DeferGen(_)
        | Var::PageGen(_)
        | Var::FlushedGen
        | Var::CpuGen(_)
        | Var::CpuNote(_) => bits_for(nr_gens + 1),
        Var::CpuStep(_) => bits_for(last_step(world.threads.len())),
        Var::LoadedMm(_) => 2,
        Var::Thread(thread, local) => match local {
            Local::Pc => bits_for(waiting[usize::from(thread)].len().max(2) as u64 - 1),
            Local::Pte | Local::New | Local::Multicall(_) => pte::width(nr_frames),
            Local::Tlbi | Local::LazyBatch(_) | Local::Range | Local::Tracked | Local::Migrated | Local::Visited => {
                nr_pages
            }
            Local::Queued | Local::Delayed => slots.len() as u32,
            Local::Listed => nr_frames as u32,
            Local::NewFrame => bits_for(nr_frames as u64 - 1),
            Local::Hold | Local::Writing | Local::Copying => frame_name,
            Local::BatchPending | Local::BatchFlushed => bits_for(nr_batched),
            Local::FlushGen | Local::DeferGen => bits_for(nr_gens + 1),
            _ => 1,
        },
        _ => 1,
    }
}
