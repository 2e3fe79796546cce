//! The whole state as JSON, in one canonical form: what two machines that agree must have equal.

use serde_json::{Value, json};

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PTRS_PER_TABLE, VaRange, VirtAddr};
use crate::cpumask::CpuId;
use crate::flush::{INIT_MM, MmId};
use crate::page_table::{Pte, TableCursor, TableVisit, table_index};
use crate::tlb::{CachedEntry, CachedTable, Tlbs};

use super::Machine;
use super::mm::Mm;
use super::pages::{Page, Pages};
use super::vma::Vma;

impl Machine {
    /// Everything that a later operation could see, and the contents of the TLBs.
    pub fn state(&self) -> Value {
        json!({
            "mms": self.dump_mms(),
            "cpus": self.dump_cpus(),
            "tasks": self.dump_tasks(),
            "pages": self.pages.iter().map(|(pfn, page)| dump_page(pfn.0, page)).collect::<Vec<_>>(),
            "files": self.dump_files(),
            "swap": self.pages.swap_slots().collect::<Vec<_>>(),
            "tlb": self.dump_tlbs(),
        })
    }

    fn dump_mms(&self) -> Vec<Value> {
        let init = self.engine.context(INIT_MM);
        let mut list = vec![json!({ "id": 0, "ctx_id": init.ctx_id, "tlb_gen": init.tlb_gen })];
        list.extend(self.live_mms().map(|(id, mm)| self.dump_mm(id, mm)));
        list
    }

    fn dump_mm(&self, id: MmId, mm: &Mm) -> Value {
        let context = self.engine.context(id);
        let ptes: Vec<Value> =
            self.leaves(id).into_iter().map(|(addr, shift, pte)| json!([addr.0, shift, pte.to_string()])).collect();
        json!({
            "id": id.0,
            "ctx_id": context.ctx_id,
            "tlb_gen": context.tlb_gen,
            "mm_cpumask": context.mm_cpumask.to_string(),
            "tlb_flush_pending": mm.tlb_flush_pending,
            "tlb_flush_batched": [mm.tlb_flush_batched.pending, mm.tlb_flush_batched.flushed],
            "tlb_flush_batched_cpumask": mm.tlb_flush_batched_cpumask.to_string(),
            "tlb_gen_completed": mm.tlb_gen_completed,
            "brk": mm.brk.0,
            "mm_users": mm.mm_users,
            "vmas": mm.vmas.iter().map(dump_vma).collect::<Vec<_>>(),
            "ptes": ptes,
            "nr_tables": self.tables.nr_tables_under(mm.root),
        })
    }

    /// Every entry that is not none, by address, with log2 of the size that it maps.
    pub fn leaves(&self, id: MmId) -> Vec<(VirtAddr, u32, Pte)> {
        let Some(mm) = self.mm(id) else {
            return Vec::new();
        };
        let space = VaRange::new(VirtAddr(0), self.tables.levels().user_end());
        let mut cursor = TableCursor::new(mm.root, space);
        let mut list = Vec::new();
        while let Some(visit) = cursor.next(&self.tables) {
            match visit {
                TableVisit::PteTable { id, range } => {
                    for index in 0..PTRS_PER_TABLE {
                        let pte = self.tables.get(id, index);
                        if !pte.is_none() {
                            let addr = VirtAddr(range.start.align_down(PMD_SHIFT).0 + index as u64 * PAGE_SIZE);
                            list.push((addr, PAGE_SHIFT, pte));
                        }
                    }
                }
                TableVisit::HugePmd { range, table, index } => {
                    list.push((range.start, PMD_SHIFT, self.tables.get(table, index)));
                }
                TableVisit::HugePud { .. } => {}
            }
        }
        list
    }

    fn dump_cpus(&self) -> Vec<Value> {
        let dump = |(number, cpu): (u16, &super::mm::Cpu)| {
            let state = self.engine.cpu(CpuId(number));
            let ctxs: Vec<(u64, u64)> = state.ctxs.iter().map(|ctx| (ctx.ctx_id, ctx.tlb_gen)).collect();
            json!({
                "curr": cpu.curr,
                "loaded_mm": state.loaded_mm.0,
                "slot": state.loaded_mm_asid,
                "next_asid": state.next_asid,
                "is_lazy": state.is_lazy,
                "ctxs": ctxs,
                "lru_waiting": self.pages.nr_lru_waiting(CpuId(number)),
            })
        };
        (0..).zip(&self.cpus).map(dump).collect()
    }

    fn dump_tasks(&self) -> Vec<Value> {
        let live = (0_u32..).zip(&self.tasks).filter_map(|(id, task)| Some((id, task.as_ref()?)));
        live.map(|(id, task)| {
            json!({
                "id": id,
                "mm": task.mm.0,
                "cpu": task.cpu.0,
                "running": task.running,
                "ubc": [task.tlb_ubc.cpumask.to_string(), task.tlb_ubc.flush_required, task.tlb_ubc.writable],
            })
        })
        .collect()
    }

    fn dump_files(&self) -> Vec<Value> {
        let files = self.pages.files();
        files
            .map(|(id, file)| {
                let pages: Vec<(u64, u64)> = file.pages.iter().map(|(index, pfn)| (*index, pfn.0)).collect();
                let swapped: Vec<u64> = file.swapped.iter().copied().collect();
                json!({
                    "id": id.0,
                    "shmem": file.shmem,
                    "nr_pages": file.nr_pages,
                    "pages": pages,
                    "swapped": swapped,
                })
            })
            .collect()
    }

    fn dump_tlbs(&self) -> Vec<Value> {
        let nr_cpus = self.cpus.len();
        match self.engine.tlbs() {
            Some(tlbs) => (0..nr_cpus).map(|cpu| dump_tlb(tlbs, cpu)).collect(),
            None => (0..nr_cpus).map(|_| json!({ "entries": [], "psc": [] })).collect(),
        }
    }

    /// Checks what holds between operations: entries and reverse maps name each other, reference counts are exact.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check_consistency(&self) -> crate::error::Result<()> {
        let wrong = |what: String| Err(crate::error::Error::Value(format!("inconsistent machine: {what}")));
        let mut nr_mappings = 0;
        for (id, _) in self.live_mms() {
            for (addr, _, pte) in self.leaves(id) {
                let Some((pfn, page)) = Self::page_of(pte).and_then(|pfn| Some((pfn, self.pages.get(pfn)?))) else {
                    continue;
                };
                nr_mappings += 1;
                let mapping = super::Mapping { mm: id, addr };
                if !page.rmap.as_slice().contains(&mapping) {
                    return wrong(format!("page {:#x} does not know its mapping at {addr} of mm {id}", pfn.0));
                }
            }
        }
        let mut nr_known = 0;
        for (pfn, page) in self.pages.iter() {
            nr_known += page.rmap.len();
            let holders = u32::from(page.in_page_cache) + u32::from(page.swap_slot.is_some());
            let expected = page.rmap.len() as u32 + holders + page.nr_copied;
            if page.refcount != expected || expected == 0 {
                return wrong(format!("page {:#x} has refcount {}, expected {expected}", pfn.0, page.refcount));
            }
            for mapping in page.rmap.as_slice() {
                let there = self.mm(mapping.mm).and_then(|mm| self.place_at(mm.root, mapping.addr));
                let entry = there.map(|place| self.tables.get(place.table, table_index(mapping.addr, place.level)));
                if entry.and_then(Self::page_of) != Some(pfn) {
                    return wrong(format!("page {:#x} is not mapped at {} of mm {}", pfn.0, mapping.addr, mapping.mm));
                }
            }
        }
        if nr_known != nr_mappings {
            return wrong(format!("{nr_mappings} entries map pages, {nr_known} are in reverse maps"));
        }
        Ok(())
    }
}

fn dump_vma(vma: &Vma) -> Value {
    json!({
        "start": vma.start.0,
        "end": vma.end.0,
        "flags": vma.flags.bits(),
        "file": vma.file.map(|file| file.0),
        "pgoff": vma.pgoff,
        "anon_vma": vma.anon_vma.is_some(),
        "defer_gen": vma.defer_gen,
    })
}

fn dump_page(pfn: u64, page: &Page) -> Value {
    let rmap: Vec<(u32, u64)> = page.rmap.as_slice().iter().map(|m| (m.mm.0, m.addr.0)).collect();
    json!({
        "pfn": pfn,
        "kind": page.kind.name(),
        "order": if Pages::is_huge(crate::addr::Pfn(pfn)) { 9 } else { 0 },
        "refcount": page.refcount,
        "mapcount": rmap.len(),
        "dirty": page.dirty,
        "swap_slot": page.swap_slot,
        "lazyfree": page.lazyfree,
        "ksm": page.ksm,
        "exclusive": page.exclusive,
        "lru_cpu": page.lru_cpu.map(|cpu| cpu.0),
        "rmap": rmap,
        "file": page.place.map(|(file, _)| file.0),
        "index": page.place.map(|(_, index)| index),
    })
}

fn dump_tlb(tlbs: &Tlbs, cpu: usize) -> Value {
    let mut entries: Vec<_> = tlbs.entries(cpu).iter().map(dump_entry).collect();
    entries.sort_unstable();
    let mut tables: Vec<_> = tlbs.psc_entries(cpu).iter().map(dump_table).collect();
    tables.sort_unstable();
    json!({ "entries": entries, "psc": tables })
}

fn dump_table(cached: &CachedTable) -> (u16, u8, u64) {
    (cached.pcid, cached.level.table_level(), cached.start.0)
}

fn dump_entry(cached: &CachedEntry) -> (u16, u64, u32, u64, String, &'static str) {
    let entry = &cached.entry;
    let flags = [(entry.write, "W"), (entry.dirty, "D"), (entry.nx, "NX"), (entry.global, "G")];
    let names: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let place = match (cached.in_l1, cached.in_stlb) {
        (true, true) => "L1+STLB",
        (true, false) => "L1",
        _ => "STLB",
    };
    (cached.pcid, entry.vpn.0, entry.size.shift(), entry.pfn.0, names.join(" "), place)
}
