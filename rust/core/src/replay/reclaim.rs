//! Reclaim as the lab's records show it: lists of pages, each page in its time among what other CPUs do.
//!
//! The kernel takes up to 32 pages off the LRU and walks the areas of one page after the other (mm/vmscan.c:
//! `shrink_folio_list`, until v5.17 `shrink_page_list`). An entry is cleared, and its flush put off, when its area is visited; a
//! dirty page is flushed and written before the next page is visited, the others at the end of the list. Another CPU may switch
//! tasks at any time between: from the visit on it finds the generation raised, and so flushes by itself; what is flushed later
//! then finds nothing left to do there. So a page whose walk has begun when a CPU switches is done up to the visits before.

use super::driver::Driver;
use super::reclaimed::{Found, ReclaimVisit};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::error::{Error, Result};
use crate::flush::MmId;
use crate::machine::{Call, LockKey, Operation, Progress};
use crate::trace::{Event, EventKind};

/// The most calls that one record of reclaim is believed to stand for.
const RECLAIM_MAX: u64 = 1 << 14;

/// Pages that reclaim took in a row.
#[derive(Clone)]
pub(super) struct ReclaimList {
    /// Who reclaimed.
    task: u32,
    /// Row of the first record.
    row: usize,
    /// When it ended, in ns, if the recording tells; then all its visits are known from its begin.
    end_ns: Option<u64>,
    /// Row of the last record whose visits were taken in.
    upto: usize,
    /// What reclaim visited and is not done yet, in order.
    visits: Vec<ReclaimVisit>,
    /// The page before these, whose walk was interrupted by a switch.
    walk: Option<Walk>,
    /// Rows of faults of others that met a page of the list when it was gone already.
    faults: Vec<usize>,
}

/// A page whose areas are being walked.
#[derive(Clone)]
struct Walk {
    call: Call,
    /// Row of its first visit.
    row: usize,
    visits: Vec<ReclaimVisit>,
    /// Rows of the visits to areas that map it.
    areas: Vec<usize>,
    /// In how many of those its entry was taken out.
    nr_cleared: usize,
    /// When all that the last visit led to was done, in ns.
    done_ns: u64,
}

impl Driver<'_> {
    /// A page that reclaim chose; those in a row are one list. Inside madvise the machine chooses by itself.
    pub(super) fn reclaim_page(&mut self, row: usize, event: &Event) -> Result<()> {
        if self.pageout_end.get(&event.task).is_some_and(|end_ns| event.time_ns <= *end_ns) {
            return Ok(());
        }
        if let Some(list) = &mut self.reclaim
            && list.task == event.task
            && list.end_ns.is_none_or(|end_ns| event.time_ns <= end_ns)
        {
            if list.upto < row {
                list.upto = row;
                let visits = self.visits_of(row, event);
                self.reclaim.iter_mut().for_each(|list| list.visits.extend(&visits));
            }
            return Ok(());
        }
        if let Some(list) = &mut self.reclaim {
            // What the other task has not visited yet comes again.
            list.visits.retain(|visit| visit.row < row);
        }
        self.flush_reclaim()?;
        let end_ns = self.list_end(event.task, event.time_ns);
        let (mut visits, mut upto) = (self.visits_of(row, event), row);
        for later in row + 1..self.recording.events.len() {
            let other = self.recording.events.get(later);
            if end_ns.is_none_or(|end_ns| end_ns < other.time_ns) {
                break;
            }
            if other.task == event.task && other.kind() == EventKind::ReclaimPage {
                visits.extend(self.visits_of(later, &other));
                upto = later;
            }
        }
        self.reclaim =
            Some(ReclaimList { task: event.task, row, end_ns, upto, visits, walk: None, faults: Vec::new() });
        Ok(())
    }

    /// The visits that a record stands for; none in an address space that is not known.
    fn visits_of(&self, row: usize, event: &Event) -> Vec<ReclaimVisit> {
        let addr = VirtAddr(event.a0 & !(PAGE_SIZE - 1));
        let mapped = |mm: &MmId| self.machine.leaf(*mm, addr).is_some();
        let mm = if self.is_lab {
            self.lab_mm(event.a1, event.time_ns)
        } else {
            self.machine.live_mms().map(|(mm, _)| mm).find(mapped)
        };
        let done_ns = self.visit_done(event.task, event.time_ns);
        let nr_calls = event.a2.clamp(1, RECLAIM_MAX);
        mm.map_or_else(Vec::new, |mm| ReclaimVisit::of_record(self.recording, row, (mm, addr), nr_calls, done_ns))
    }

    /// Does what reclaim had done when an event happens: all of its list, if it is one of its own task or later than the
    /// list's end; else what was done by then, so that what other CPUs do meanwhile comes in its place.
    pub(super) fn advance_reclaim(&mut self, row: usize, event: &Event) -> Result<()> {
        let Some(list) = &self.reclaim else { return Ok(()) };
        let is_own = list.task == event.task;
        if is_own && event.kind() == EventKind::ReclaimPage {
            return Ok(());
        }
        // It may lose its CPU in the middle of a list.
        let is_switch = event.kind() == EventKind::Switch;
        if is_own && !is_switch || list.end_ns.is_some_and(|end_ns| end_ns <= event.time_ns) {
            return self.flush_reclaim();
        }
        if list.end_ns.is_none() {
            return Ok(());
        }
        let switch = Some(row).filter(|_| is_switch && !is_own);
        match (switch, &list.walk) {
            (Some(switch), Some(walk)) if event.time_ns < walk.done_ns => self.walk_on(switch),
            _ => {
                self.finish_walk()?;
                self.reclaim_until(event.time_ns, switch)
            }
        }
    }

    /// Whether a fault met a page that reclaim has taken, although its list goes on: then it has to wait for the list.
    pub(super) fn meets_reclaim(&mut self, row: usize, event: &Event) -> bool {
        let pid = |task: u32| self.recording.tasks.get(task as usize).map(|task| task.pid);
        let Some(list) = &mut self.reclaim else { return false };
        // Addresses alone do not tell the address space, but processes of a scenario are copies of one another.
        let meets = list.covers(row, event.a0 & !(PAGE_SIZE - 1)) && pid(list.task) == pid(event.task);
        if meets {
            list.faults.push(row);
        }
        meets
    }

    /// Reclaims what was collected of the list, to its end.
    pub(super) fn flush_reclaim(&mut self) -> Result<()> {
        self.finish_walk()?;
        let Some(list) = self.reclaim.take() else { return Ok(()) };
        let row = list.visits.first().map_or(list.row, |visit| visit.row);
        self.caused_by((row, list.task), |driver| {
            let mut found = Found::default();
            let mut next = 0;
            while next < list.visits.len() {
                next += driver.reclaimed_page(&list.visits[next..], &mut found)?;
            }
            driver.reclaim_places(list.task, row, found.places, false)
        })?;
        self.faults_after_reclaim(list.faults)
    }

    /// Reclaims the pages that were done by a time; at a switch the next one too, up to the visits before.
    fn reclaim_until(&mut self, now_ns: u64, switch: Option<usize>) -> Result<()> {
        let Some(mut list) = self.reclaim.take() else { return Ok(()) };
        let row = list.visits.first().map_or(list.row, |visit| visit.row);
        self.caused_by((row, list.task), |driver| driver.reclaim_part(&mut list, now_ns, switch))?;
        let faults = std::mem::take(&mut list.faults);
        let of_rest = |row: &usize| list.covers(*row, self.recording.events.a0[*row] & !(PAGE_SIZE - 1));
        let (later, now) = faults.into_iter().partition(of_rest);
        list.faults = later;
        self.reclaim = Some(list);
        self.faults_after_reclaim(now)
    }

    fn reclaim_part(&mut self, list: &mut ReclaimList, now_ns: u64, switch: Option<usize>) -> Result<()> {
        let time_of = |visit: &ReclaimVisit| self.recording.events.time_ns[visit.row];
        let is_done = |visit: &ReclaimVisit| visit.done_ns <= now_ns;
        let row = list.visits.first().map_or(list.row, |visit| visit.row);
        let nr_visited = list.visits.iter().take_while(|visit| time_of(visit) <= now_ns).count();
        let mut found = Found::default();
        let mut nr_done = 0;
        let mut walk = None;
        while nr_done < nr_visited && (switch.is_some() || is_done(&list.visits[nr_done])) {
            let nr_places = found.places.len();
            let nr_visits = self.reclaimed_page(&list.visits[nr_done..], &mut found)?;
            let visits = &list.visits[nr_done..nr_done + nr_visits];
            if !visits.last().is_some_and(is_done) {
                let areas: Vec<usize> =
                    visits.iter().filter(|visit| found.is_mapped_at(visit)).map(|visit| visit.row).collect();
                walk = found.places.drain(nr_places..).next().map(|place| (place, nr_visits, areas));
                break;
            }
            nr_done += nr_visits;
        }
        if nr_done > 0 {
            list.visits.drain(..nr_done);
            self.reclaim_places(list.task, row, found.places, true)?;
        }
        if let (Some(switch), Some((place, nr_visits, areas))) = (switch, walk)
            && self.machine.nr_calls() == 0
            && let Some(task) = self.ensure_running(list.task, self.recording.events.cpu[row])?
        {
            let call =
                self.machine.begin(Operation::Reclaim { task, pages: vec![place], proactive: true, goes_on: true })?;
            let visits: Vec<ReclaimVisit> = list.visits.drain(..nr_visits).collect();
            let (row, done_ns) = (visits[0].row, visits[nr_visits - 1].done_ns);
            let mut walk = Walk { call, row, visits, areas, nr_cleared: 0, done_ns };
            self.cause.0 = row;
            self.clear_visited(&mut walk, task, switch)?;
            list.walk = Some(walk);
        }
        Ok(())
    }

    /// Does something that another event than the current one is the cause of.
    fn caused_by(&mut self, cause: (usize, u32), act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.book();
        let before = std::mem::replace(&mut self.cause, cause);
        act(self)?;
        self.book();
        self.cause = before;
        Ok(())
    }

    /// The page that is being walked loses its entries in the areas that were visited before a switch.
    fn walk_on(&mut self, switch: usize) -> Result<()> {
        self.with_walk(|driver, walk, task| driver.clear_visited(walk, task, switch))
    }

    fn clear_visited(&mut self, walk: &mut Walk, task: u32, switch: usize) -> Result<()> {
        let nr_visited = walk.areas.iter().filter(|visit| self.is_cleared_before(**visit, switch)).count();
        while walk.nr_cleared < nr_visited && walk.call.outcome().is_none() {
            let was_atomic = self.machine.is_atomic(task);
            if matches!(self.machine.advance(&mut walk.call)?, Progress::Blocked(_)) {
                break;
            }
            walk.nr_cleared += usize::from(was_atomic && !self.machine.is_atomic(task));
        }
        Ok(())
    }

    /// Whether a visit took its entry out before a switch of another CPU took effect. The record of a visit is made when
    /// it begins, that of a switch before the address space is loaded: if they follow each other, the flush that loading it
    /// again came with, or not, tells whether the generation was raised.
    fn is_cleared_before(&self, visit: usize, switch: usize) -> bool {
        let events = &self.recording.events;
        let (visit_ns, switch_ns) = (events.time_ns[visit], events.time_ns[switch]);
        let did_more = || self.lab.as_ref().is_some_and(|lab| lab.did_between(events.task[visit], visit_ns, switch_ns));
        let flushed = || self.lab.as_ref().is_some_and(|lab| lab.flushed_at(switch));
        visit_ns <= switch_ns && (did_more() || flushed())
    }

    /// The page that is being walked is done: flushed and written, if that is due.
    pub(super) fn finish_walk(&mut self) -> Result<()> {
        self.with_walk(|driver, walk, task| {
            loop {
                match driver.machine.advance(&mut walk.call)? {
                    Progress::Done(_) => return Ok(()),
                    Progress::Ran => {}
                    Progress::Blocked(LockKey::Cpu(_)) => {
                        let cpu = driver.machine.task(task)?.cpu.0.into();
                        driver.run(&Operation::Schedule { cpu, task: Some(task) })?;
                    }
                    Progress::Blocked(key) => {
                        return Err(Error::Value(format!("found {key} held, expected no other call in progress")));
                    }
                }
            }
        })
    }

    /// Does something with the walk in progress, if there is one; what it flushes is booked on its own record.
    fn with_walk(&mut self, go_on: impl FnOnce(&mut Self, &mut Walk, u32) -> Result<()>) -> Result<()> {
        let Some(mut list) = self.reclaim.take_if(|list| list.walk.is_some()) else { return Ok(()) };
        if let Some(mut walk) = list.walk.take() {
            let task = walk.call.operation().task().unwrap_or_default();
            self.caused_by((walk.row, list.task), |driver| go_on(driver, &mut walk, task))?;
            list.walk = Some(walk).filter(|walk| walk.call.outcome().is_none());
        }
        self.reclaim = Some(list);
        Ok(())
    }

    fn reclaim_places(&mut self, task: u32, row: usize, pages: Vec<(u32, u64)>, goes_on: bool) -> Result<()> {
        if let Some(task) = self.ensure_running(task, self.recording.events.cpu[row])? {
            self.run(&Operation::Reclaim { task, pages, proactive: true, goes_on })?;
        }
        Ok(())
    }

    /// Faults of others that had to wait for pages of the list.
    fn faults_after_reclaim(&mut self, faults: Vec<usize>) -> Result<()> {
        let before = self.cause;
        for row in faults {
            let event = self.recording.events.get(row);
            self.cause = (row, event.task);
            self.fault(&event)?;
            self.book();
        }
        self.cause = before;
        Ok(())
    }
}

impl ReclaimList {
    /// Whether a page could be one that was visited before a row and is not done.
    fn covers(&self, row: usize, page: u64) -> bool {
        let walked = self.walk.iter().flat_map(|walk| &walk.visits);
        walked.chain(&self.visits).any(|visit| visit.row < row && visit.covers(page))
    }
}
