//! The model: for each CPU and array a list of entries per set, most recently used (or inserted) first; all it does is
//! filter and reorder lists.

use tlbcore::addr::{PageSize, VaRange, VirtAddr};
use tlbcore::tlb::{
    ArrayGeometry, CachedEntry, CachedTable, Dropped, HitLevel, PscLevel, PscScope, Replacement, TlbEntry, TlbGeometry,
};

/// An entry of the model: an owner (none if global), the first byte it maps, log2 of the bytes, the payload.
#[derive(Clone, PartialEq, Debug)]
pub struct Item<T> {
    pub owner: Option<u16>,
    pub start: u64,
    pub shift: u32,
    pub payload: T,
}

impl<T> Item<T> {
    pub fn maps(&self, va: u64) -> bool {
        va >> self.shift << self.shift == self.start
    }

    pub fn usable_by(&self, pcid: u16) -> bool {
        self.owner.is_none_or(|owner| owner == pcid)
    }
}

/// One array of one CPU: its sets, each most recently used (or inserted) first.
#[derive(Clone, Debug)]
pub struct Sets<T> {
    pub ways: usize,
    pub is_fifo: bool,
    pub lists: Vec<Vec<Item<T>>>,
}

impl<T: Clone> Sets<T> {
    pub fn new(geometry: ArrayGeometry, is_fifo: bool) -> Self {
        Self { ways: geometry.ways as usize, is_fifo, lists: vec![Vec::new(); geometry.nr_sets() as usize] }
    }

    pub fn items(&self) -> impl Iterator<Item = &Item<T>> {
        self.lists.iter().flatten()
    }

    pub fn find(&self, pcid: u16, va: u64, shift: u32) -> Option<&Item<T>> {
        self.items().find(|item| item.usable_by(pcid) && item.shift == shift && item.maps(va))
    }

    pub fn hit(&mut self, pcid: u16, va: u64, shift: u32) -> Option<Item<T>> {
        let item = self.find(pcid, va, shift)?.clone();
        if !self.is_fifo {
            let nr_sets = self.lists.len() as u64;
            let set = &mut self.lists[((va >> shift) % nr_sets) as usize];
            set.retain(|other| !(other.usable_by(pcid) && other.shift == shift && other.maps(va)));
            set.insert(0, item.clone());
        }
        Some(item)
    }

    pub fn insert(&mut self, pcid: u16, new: Item<T>) {
        if self.lists.is_empty() {
            return;
        }
        let same_page = |item: &Item<T>| item.shift == new.shift && item.start == new.start;
        let nr_sets = self.lists.len() as u64;
        let set = &mut self.lists[((new.start >> new.shift) % nr_sets) as usize];
        if new.owner.is_none() {
            set.retain(|item| !same_page(item) || item.usable_by(pcid));
        }
        let place = set.iter().position(|item| same_page(item) && item.usable_by(pcid));
        match place {
            Some(place) if self.is_fifo => set[place] = new,
            Some(place) => {
                set.remove(place);
                set.insert(0, new);
            }
            None => {
                set.insert(0, new);
                set.truncate(self.ways);
            }
        }
    }

    pub fn drop_if(&mut self, drop: impl Fn(&Item<T>) -> bool) -> u32 {
        let nr_before = self.items().count();
        self.lists.iter_mut().for_each(|set| set.retain(|item| !drop(item)));
        (nr_before - self.items().count()) as u32
    }
}

/// One CPU of the model.
#[derive(Clone)]
pub struct Cpu {
    pub l1: Vec<Sets<TlbEntry>>,
    pub stlb: Sets<TlbEntry>,
    pub stlb_1g: Sets<TlbEntry>,
    pub psc: Vec<Sets<u32>>,
    pub nr_l1_hits: u64,
    pub nr_stlb_hits: u64,
    pub nr_misses: u64,
    pub nr_psc_hits: [u64; 4],
    pub nr_psc_misses: u64,
}

pub struct Model {
    pub geometry: TlbGeometry,
    pub cpus: Vec<Cpu>,
}

impl Model {
    pub fn new(geometry: TlbGeometry, nr_cpus: usize) -> Self {
        let is_fifo = geometry.replacement == Replacement::Fifo;
        let caches = [geometry.pde_cache, geometry.pdpte_cache, geometry.pml4e_cache, geometry.pml5e_cache];
        let cpu = Cpu {
            l1: PageSize::ALL.iter().map(|size| Sets::new(geometry.l1(*size), is_fifo)).collect(),
            stlb: Sets::new(geometry.stlb.array(), is_fifo),
            stlb_1g: Sets::new(geometry.stlb_1g, is_fifo),
            psc: caches.iter().map(|cache| Sets::new(*cache, false)).collect(),
            nr_l1_hits: 0,
            nr_stlb_hits: 0,
            nr_misses: 0,
            nr_psc_hits: [0; 4],
            nr_psc_misses: 0,
        };
        Self { geometry, cpus: vec![cpu; nr_cpus] }
    }

    pub fn stlb_of(&mut self, cpu: usize, size: PageSize) -> Option<&mut Sets<TlbEntry>> {
        if self.geometry.stlb.holds(size) {
            Some(&mut self.cpus[cpu].stlb)
        } else if size == PageSize::Size1G {
            Some(&mut self.cpus[cpu].stlb_1g)
        } else {
            None
        }
    }

    pub fn lookup(&mut self, cpu: usize, pcid: u16, va: u64) -> Option<(TlbEntry, HitLevel)> {
        for size in PageSize::ALL {
            if let Some(item) = self.cpus[cpu].l1[size as usize].hit(pcid, va, size.shift()) {
                self.cpus[cpu].nr_l1_hits += 1;
                return Some((item.payload, HitLevel::L1));
            }
        }
        for size in PageSize::ALL {
            if let Some(item) = self.stlb_of(cpu, size).and_then(|stlb| stlb.hit(pcid, va, size.shift())) {
                self.cpus[cpu].nr_stlb_hits += 1;
                self.cpus[cpu].l1[size as usize].insert(pcid, item.clone());
                return Some((item.payload, HitLevel::Stlb));
            }
        }
        self.cpus[cpu].nr_misses += 1;
        None
    }

    pub fn insert(&mut self, cpu: usize, pcid: u16, entry: TlbEntry) {
        let owner = (!entry.global).then_some(pcid);
        let item = Item { owner, start: entry.start().0, shift: entry.size.shift(), payload: entry };
        self.cpus[cpu].l1[entry.size as usize].insert(pcid, item.clone());
        if let Some(stlb) = self.stlb_of(cpu, entry.size) {
            stlb.insert(pcid, item);
        }
    }

    pub fn arrays(&mut self, cpu: usize) -> impl Iterator<Item = &mut Sets<TlbEntry>> {
        let cpu = &mut self.cpus[cpu];
        cpu.l1.iter_mut().chain([&mut cpu.stlb, &mut cpu.stlb_1g])
    }

    pub fn update_dirty(&mut self, cpu: usize, pcid: u16, va: u64) -> bool {
        let mut found = false;
        for item in self.arrays(cpu).flat_map(|array| array.lists.iter_mut().flatten()) {
            if item.usable_by(pcid) && item.maps(va) {
                item.payload.dirty = true;
                item.payload.write = true;
                found = true;
            }
        }
        found
    }

    pub fn drop_tlb(&mut self, cpu: usize, drop: impl Fn(&Item<TlbEntry>) -> bool) -> u32 {
        self.arrays(cpu).map(|array| array.drop_if(&drop)).sum()
    }

    pub fn drop_psc(&mut self, cpu: usize, drop: impl Fn(&Item<u32>) -> bool) -> u32 {
        self.cpus[cpu].psc.iter_mut().map(|cache| cache.drop_if(&drop)).sum()
    }

    pub fn invalidate_page(&mut self, cpu: usize, pcid: u16, va: u64, scope: PscScope) -> Dropped {
        Dropped {
            nr_tlb: self.drop_tlb(cpu, |item| item.usable_by(pcid) && item.maps(va)),
            nr_psc: self.drop_psc(cpu, |item| {
                item.owner == Some(pcid)
                    && match scope {
                        PscScope::All => true,
                        PscScope::Covering => item.maps(va),
                        PscScope::None => false,
                    }
            }),
        }
    }

    pub fn contains_in_range(&self, cpu: usize, pcid: u16, range: VaRange) -> bool {
        self.entries(cpu).iter().any(|cached| {
            let page = VaRange::new(cached.entry.start(), cached.entry.end());
            (cached.entry.global || cached.pcid == pcid) && !range.intersect(page).is_empty()
        })
    }

    pub fn contains_tables_in(&self, cpu: usize, pcid: u16, range: VaRange) -> bool {
        self.psc_entries(cpu).iter().any(|table| {
            let end = VirtAddr(table.start.0 + (1 << table.level.shift()));
            table.pcid == pcid && !range.intersect(VaRange::new(table.start, end)).is_empty()
        })
    }

    pub fn psc_lookup(&mut self, cpu: usize, pcid: u16, va: u64) -> Option<(PscLevel, u32)> {
        for level in PscLevel::ALL {
            if let Some(item) = self.cpus[cpu].psc[level as usize].hit(pcid, va, level.shift()) {
                self.cpus[cpu].nr_psc_hits[level as usize] += 1;
                return Some((level, item.payload));
            }
        }
        self.cpus[cpu].nr_psc_misses += 1;
        None
    }

    pub fn entries(&self, cpu: usize) -> Vec<CachedEntry> {
        let Cpu { l1, stlb, stlb_1g, .. } = &self.cpus[cpu];
        let in_l1: Vec<_> = l1.iter().flat_map(Sets::items).cloned().collect();
        let in_stlb: Vec<_> = stlb.items().chain(stlb_1g.items()).cloned().collect();
        let mut all = in_l1.clone();
        all.extend(in_stlb.iter().filter(|item| !in_l1.contains(item)).cloned());
        all.sort_by_key(|item| (item.owner, item.start, item.shift));
        let cached = |item: &Item<TlbEntry>| CachedEntry {
            pcid: item.owner.unwrap_or(0),
            entry: item.payload,
            in_l1: in_l1.contains(item),
            in_stlb: in_stlb.contains(item),
        };
        all.iter().map(cached).collect()
    }

    pub fn psc_entries(&self, cpu: usize) -> Vec<CachedTable> {
        let mut all = Vec::new();
        for (level, cache) in PscLevel::ALL.into_iter().zip(&self.cpus[cpu].psc) {
            all.extend(cache.items().map(|item| CachedTable {
                pcid: item.owner.expect("tables have owners"),
                level,
                start: VirtAddr(item.start),
                table_id: item.payload,
            }));
        }
        all.sort();
        all
    }
}
