//! What is left out of the unrolled steps because nobody can see it, and which of the rest threads wait at.

use std::collections::BTreeSet;

use super::NO_WAIT;
use super::op::{Class, Kind, Op, OpIndex, PageRef, Test};
use super::vars::{Local, Var, VarId, Vars};

/// A lock that only one thread takes keeps nobody out.
pub(super) fn drop_private_locks(ops: &mut [Op], vars: &mut Vars) {
    let users_of = |ops: &[Op], wanted: &dyn Fn(&Kind) -> bool| {
        let threads: BTreeSet<u8> = ops.iter().filter(|op| wanted(&op.kind)).map(|op| op.thread).collect();
        threads.len()
    };
    let is_lock = |var: Var| {
        matches!(
            var,
            Var::Ptl(_)
                | Var::Pml(_)
                | Var::MmapReaders(_)
                | Var::MmapWriter(_)
                | Var::VmaReaders(_)
                | Var::VmaWriter(_)
                | Var::RmapReaders
                | Var::RmapWriter
        )
    };
    let names: Vec<(VarId, Var)> =
        vars.all().iter().enumerate().map(|(index, var)| (VarId(index as u16), *var)).collect();
    let mut private: BTreeSet<VarId> = BTreeSet::new();
    for (id, _) in names.iter().filter(|(_, var)| is_lock(*var)) {
        let takes = |kind: &Kind| match kind {
            Kind::Acquire(var) | Kind::Set(var, _) | Kind::Add(var, _) => var == id,
            Kind::Table(step) => step.locks().contains(id),
            Kind::AcquireRead { readers, writer }
            | Kind::AcquireWrite { readers, writer }
            | Kind::Downgrade { readers, writer } => readers == id || writer == id,
            _ => false,
        };
        // Readers keep nobody out if nobody writes.
        let excludes =
            |kind: &Kind| takes(kind) && matches!(kind, Kind::Acquire(_) | Kind::AcquireWrite { .. } | Kind::Table(_));
        if users_of(ops, &takes) <= 1 || !ops.iter().any(|op| excludes(&op.kind)) {
            private.insert(*id);
        }
    }
    // A lock for reading and writing is private as a whole or not at all.
    let folio_users =
        users_of(ops, &|kind| matches!(kind, Kind::AcquireFolio(PageRef::Fixed(_) | PageRef::OfPte | PageRef::New)));
    let tries_lock = |test: &Test| matches!(test, Test::SwapShared(locks) if !locks.is_empty());
    let is_tried = ops.iter().any(|op| matches!(&op.kind, Kind::Branch(test) if test.any(&tries_lock)));
    let folio_is_private = folio_users <= 1 && !is_tried;
    read_visibly(ops, &private, vars);
    for op in ops.iter_mut() {
        let passes = match &op.kind {
            Kind::Acquire(var) | Kind::Set(var, _) | Kind::Add(var, _) => private.contains(var),
            Kind::AcquireRead { readers, writer }
            | Kind::AcquireWrite { readers, writer }
            | Kind::Downgrade { readers, writer } => private.contains(readers) && private.contains(writer),
            Kind::AcquireFolio(_) | Kind::ReleaseFolio(_) => folio_is_private,
            _ => false,
        };
        if passes {
            op.kind = Kind::Branch(Test::Const(true));
            op.class = Class::Local;
        }
    }
    for id in private {
        vars.forget(id);
    }
    if folio_is_private {
        for (id, var) in names {
            if matches!(var, Var::FolioLock(_)) {
                vars.forget(id);
            }
        }
    }
}

/// The first look at an entry under a page-table lock is urgent, since the hardware might as well have changed it before the
/// lock was taken. Where taking it is no step, because nobody else does, the step before may be the unlock of another table,
/// for which others wait: then the look is a step of its own.
fn read_visibly(ops: &mut [Op], private: &BTreeSet<VarId>, vars: &Vars) {
    let is_ptl = |id: &VarId| matches!(vars.all()[usize::from(id.0)], Var::Ptl(_));
    let shares: BTreeSet<u8> = ops
        .iter()
        .filter(|op| matches!(&op.kind, Kind::Acquire(var) if is_ptl(var) && !private.contains(var)))
        .map(|op| op.thread)
        .collect();
    for index in 0..ops.len() {
        let op = &ops[index];
        let is_dropped = matches!(&op.kind, Kind::Acquire(var) if is_ptl(var) && private.contains(var));
        if !is_dropped || !shares.contains(&op.thread) {
            continue;
        }
        let mut next = op.next as usize;
        while ops[next].class == Class::Local && !matches!(ops[next].kind, Kind::Branch(_)) {
            next = ops[next].next as usize;
        }
        if matches!(ops[next].kind, Kind::ReadPte(_) | Kind::ReadIfMaps(..) | Kind::PteSame(_)) {
            ops[next].class = Class::Visible;
        }
    }
}

/// A step that only writes what nobody reads is none.
pub(super) fn drop_unseen_writes(ops: &mut [Op], vars: &Vars) {
    let is_unseen = |id: &VarId| !vars.is_read(vars.all()[usize::from(id.0)]);
    for op in ops {
        let passes = match &op.kind {
            Kind::Set(var, _) | Kind::SetBits(var, _) | Kind::Add(var, _) => is_unseen(var),
            Kind::AddFrame { vars, .. } | Kind::SetFrame { vars, .. } => vars.iter().all(is_unseen),
            Kind::Reference { refs, copied, .. } => refs.iter().chain(copied).all(is_unseen),
            Kind::CopyVar { to, .. } => is_unseen(to),
            Kind::Multicall(page) => !vars.is_read(Var::Thread(op.thread, Local::Multicall(*page))),
            _ => false,
        };
        if passes {
            op.kind = Kind::Branch(Test::Const(true));
            op.class = Class::Local;
        }
    }
}

/// A step is urgent because what others do before it they might as well do before the step that leads to it. Before the
/// first one there is none.
pub(super) fn start_visibly(ops: &mut [Op], starts: &[OpIndex]) {
    let mut todo = starts.to_vec();
    while let Some(at) = todo.pop() {
        let op = &mut ops[at as usize];
        match (&op.kind, op.class) {
            (Kind::Branch(test), Class::Local) => {
                let both = *test != Test::Const(true);
                todo.push(op.next);
                if both {
                    todo.push(op.other);
                }
            }
            (_, Class::Local) => todo.push(op.next),
            (_, Class::Urgent) => op.class = Class::Visible,
            (_, Class::Visible) => {}
        }
    }
}

/// The steps at which threads wait, by thread, and each step's number among them. Steps that nothing leads to have none.
pub(super) fn number(ops: &[Op], starts: &[OpIndex], nr_threads: usize) -> (Vec<Vec<OpIndex>>, Vec<u32>) {
    let mut waiting = vec![Vec::new(); nr_threads];
    let mut waits = vec![NO_WAIT; ops.len()];
    let mut reached = vec![false; ops.len()];
    let mut todo: Vec<OpIndex> = starts.to_vec();
    while let Some(at) = todo.pop() {
        if std::mem::replace(&mut reached[at as usize], true) {
            continue;
        }
        let op = &ops[at as usize];
        if op.class != Class::Local {
            let own = &mut waiting[usize::from(op.thread)];
            waits[at as usize] = own.len() as u32;
            own.push(at);
        }
        todo.extend(op.targets());
    }
    (waiting, waits)
}
