//! The second level: an array shared by page sizes, and one for 1 GiB pages alone where the machine has it.
//!
//! The shared array is *packed* where that can be: 32 bits for a key within its set, 16 of them in one cache line. The
//! PCIDs and sizes in use are numbered for that as they come; when the numbers run out, or with an address of more than
//! 47 bits, the array becomes an [`Ordered`] one for the rest of the simulation.

use smallvec::SmallVec;

use super::dense::Misses;
use super::key::{EMPTY, Key, NUMBER_BITS, context, context_of};
use super::ordered::Ordered;
use super::packed::{self, LINE_WAYS, Line, Packing};
use crate::addr::PageSize;
use crate::tlb::{ArrayGeometry, Replacement, TlbGeometry};

/// Addresses of packed keys have at most this many bits.
pub(super) const PACKED_ADDRESS_BITS: u32 = 47;
/// Page numbers of packed keys have at most this many bits: those of 4 KiB pages.
const PACKED_NUMBER_BITS: u32 = PACKED_ADDRESS_BITS - 12;
/// Keys that a slice takes at once, so that what misses stays in the cache.
const SLICE_BLOCK: usize = 1 << 12;
/// A slot without a key. No key is packed to it, since the last context number stays unused.
const NONE: u32 = u32::MAX;

/// The arrays of one CPU.
#[derive(Clone, Debug)]
pub(super) struct SecondLevel {
    shared: Shared,
    alone_1g: Ordered,
    /// Which array holds a page size: 0 the shared one, 1 the other.
    array_of_size: [Option<u8>; 3],
}

#[derive(Clone, Debug)]
enum Shared {
    Packed(Packed),
    Ordered(Ordered),
}

impl Shared {
    fn unpacked(&self) -> Ordered {
        match self {
            Self::Packed(packed) => packed.unpack(),
            Self::Ordered(array) => array.clone(),
        }
    }
}

impl SecondLevel {
    pub(super) fn new(geometry: &TlbGeometry) -> Self {
        let is_lru = geometry.replacement == Replacement::Lru;
        let array = geometry.stlb.array();
        let can_pack = is_lru && packed::is_available() && Packed::takes(array);
        Self {
            shared: if can_pack {
                Shared::Packed(Packed::new(array))
            } else {
                Shared::Ordered(Ordered::new(array, is_lru))
            },
            alone_1g: Ordered::new(geometry.stlb_1g, is_lru),
            array_of_size: PageSize::ALL.map(|size| {
                let alone = size == PageSize::Size1G && geometry.stlb_1g.entries > 0;
                if geometry.stlb.holds(size) { Some(0) } else { alone.then_some(1) }
            }),
        }
    }

    /// Accesses in order; those that miss go to the end of `misses`.
    pub(super) fn access(&mut self, keys: &[u64], misses: &mut Vec<u64>) {
        let array_of_size = self.array_of_size;
        let mut rest = keys;
        // As far as everything is packed, which is all the way as a rule.
        while let Shared::Packed(packed) = &mut self.shared {
            let done = packed.access(rest, array_of_size.map(|array| array == Some(0)), misses);
            rest = &rest[done..];
            let Some(&key) = rest.first() else { return };
            if array_of_size[Key(key).size_index()] == Some(0) {
                self.shared = Shared::Ordered(packed.unpack());
            } else {
                self.access_one(Key(key), misses);
                rest = &rest[1..];
            }
        }
        for &key in rest {
            self.access_one(Key(key), misses);
        }
    }

    /// Whether [`Self::split`] can be, for pages of one size and PCID whose addresses have no more than
    /// [`PACKED_ADDRESS_BITS`].
    pub(super) fn can_split(&self, pcid: u16, size: PageSize) -> bool {
        let context = context_of(context(pcid, size));
        match &self.shared {
            Shared::Packed(packed) => {
                let has_number = packed.contexts.contains(&context) || packed.contexts.len() < packed.nr_numbers();
                self.array_of_size[size as usize] == Some(0) && has_number
            }
            Shared::Ordered(_) => false,
        }
    }

    /// The sets in `nr_groups` slices, for the pages of a size and PCID that [`Self::can_split`] says yes to.
    pub(super) fn split(&mut self, pcid: u16, size: PageSize, nr_groups: usize) -> Vec<Slice<'_>> {
        let Shared::Packed(packed) = &mut self.shared else { return Vec::new() };
        packed.split(context_of(context(pcid, size)), nr_groups)
    }

    /// The lines of the packed array with its ways, the log2 of its sets, and a context where packed keys have it; there are
    /// none where [`Self::can_split`] says no.
    pub(super) fn packed_lines(&mut self, context: u64) -> Option<(&mut [Line], usize, (u32, u32))> {
        let Shared::Packed(packed) = &mut self.shared else { return None };
        let base = packed.number(context)? << packed.page_bits();
        let (ways, set_bits) = (packed.geometry.ways as usize, packed.set_bits);
        Some((&mut packed.lines, ways, (set_bits, base)))
    }

    /// The ways of the shared array.
    pub(super) fn ways(&self) -> usize {
        match &self.shared {
            Shared::Packed(packed) => packed.geometry.ways as usize,
            Shared::Ordered(array) => array.ways(),
        }
    }

    /// In which place of its set a key stands, the newest first, if the array is packed and has it.
    pub(super) fn place_if_packed(&self, key: Key) -> Option<usize> {
        let Shared::Packed(packed) = &self.shared else { return None };
        let number = packed.contexts.iter().position(|&other| other == context_of(key.0))? as u32;
        let set = key.number() as usize & (packed.lines.len() - 1);
        let wanted = number << packed.page_bits() | (key.number() >> packed.set_bits) as u32;
        packed.lines[set].0.iter().position(|&other| other == wanted)
    }

    /// Puts keys into the lists of the groups that [`Self::split`] makes of as many.
    pub(super) fn group(&self, keys: &[u64], lists: &mut [Vec<u64>]) {
        let Shared::Packed(packed) = &self.shared else { return };
        let (mask, nr_groups, shift) = (packed.lines.len() - 1, lists.len(), packed.set_bits);
        for list in &mut *lists {
            list.reserve(keys.len());
        }
        for &key in keys {
            lists[group_of(key as usize & mask, nr_groups, shift)].push(key);
        }
    }

    /// The number of sets for pages of a size if a page number's low bits select the set.
    pub(super) fn nr_sets_if_masked(&self, size: PageSize) -> Option<usize> {
        match (self.array_of_size[size as usize]?, &self.shared) {
            (0, Shared::Packed(packed)) => Some(packed.lines.len()),
            (0, Shared::Ordered(array)) => array.nr_sets_if_masked(),
            _ => self.alone_1g.nr_sets_if_masked(),
        }
    }

    /// Takes some sets for pages of a size over from another second level that began as this one.
    pub(super) fn take_sets(&mut self, other: &Self, size: PageSize, is_theirs: impl Fn(usize) -> bool) {
        match (self.array_of_size[size as usize], &mut self.shared, &other.shared) {
            (Some(0), Shared::Packed(mine), Shared::Packed(theirs)) => {
                // Only one context was accessed, and every thread that met it gave it the same number.
                if theirs.contexts.len() > mine.contexts.len() {
                    mine.contexts.clone_from(&theirs.contexts);
                }
                for (set, (line, other)) in mine.lines.iter_mut().zip(&theirs.lines).enumerate() {
                    if is_theirs(set) {
                        line.clone_from(other);
                    }
                }
            }
            (Some(0), Shared::Ordered(mine), Shared::Ordered(theirs)) => mine.take_sets(theirs, is_theirs),
            (Some(0), mine, theirs) => {
                // A thread met what cannot be packed.
                let (mut array, others) = (mine.unpacked(), theirs.unpacked());
                array.take_sets(&others, is_theirs);
                *mine = Shared::Ordered(array);
            }
            _ => self.alone_1g.take_sets(&other.alone_1g, is_theirs),
        }
    }

    fn access_one(&mut self, key: Key, misses: &mut Vec<u64>) {
        let hit = match (self.array_of_size[key.size_index()], &mut self.shared) {
            (Some(0), Shared::Ordered(array)) => array.access(key),
            (Some(1), _) => self.alone_1g.access(key),
            _ => false,
        };
        if !hit {
            misses.push(key.0);
        }
    }

    pub(super) fn invalidate(&mut self, key: Key) {
        match (self.array_of_size[key.size_index()], &mut self.shared) {
            (Some(0), Shared::Ordered(array)) => array.invalidate(key),
            (Some(0), Shared::Packed(packed)) => packed.invalidate(key),
            (Some(1), _) => self.alone_1g.invalidate(key),
            _ => {}
        }
    }

    pub(super) fn flush_pcid(&mut self, pcid: u16) {
        self.alone_1g.flush_pcid(pcid);
        match &mut self.shared {
            Shared::Ordered(array) => array.flush_pcid(pcid),
            Shared::Packed(packed) => packed.flush_pcid(pcid),
        }
    }

    pub(super) fn flush_all(&mut self) {
        self.alone_1g.flush_all();
        match &mut self.shared {
            Shared::Ordered(array) => array.flush_all(),
            Shared::Packed(packed) => packed.flush_all(),
        }
    }
}

/// Which of the groups has a set: they are runs of about the same length.
#[inline]
const fn group_of(set: usize, nr_groups: usize, set_bits: u32) -> usize {
    (set * nr_groups) >> set_bits
}

/// Some of the sets of a packed array, for pages of one context.
pub(super) struct Slice<'a> {
    lines: &'a mut [Line],
    /// The set of the first line.
    first: usize,
    /// Sets of the whole array.
    nr_sets: usize,
    set_bits: u32,
    context: u64,
    /// The context, where packed keys have it.
    base: u32,
    ways: usize,
    nr_misses: u64,
    scratch: Vec<u64>,
}

impl Slice<'_> {
    /// Whether a key's set is one of these.
    pub(super) const fn has(&self, key: Key) -> bool {
        let set = key.number() as usize & (self.nr_sets - 1);
        self.first <= set && set < self.first + self.lines.len()
    }

    /// Accesses in order, all of sets that it has.
    pub(super) fn access(&mut self, keys: &[u64]) {
        let bases = [(self.context, self.base)];
        let packing = Packing { first_set: self.first, set_bits: self.set_bits, bases: &bases };
        for keys in keys.chunks(SLICE_BLOCK) {
            self.scratch.clear();
            let mut out = Misses::behind(&mut self.scratch, keys.len());
            packed::access_lines(self.lines, self.ways, keys, packing, &mut out);
            out.keep();
            self.nr_misses += self.scratch.len() as u64;
        }
    }

    /// What missed so far.
    pub(super) const fn nr_misses(&self) -> u64 {
        self.nr_misses
    }
}

/// An array of packed keys, under LRU.
#[derive(Clone, Debug)]
struct Packed {
    geometry: ArrayGeometry,
    lines: Vec<Line>,
    /// log2 of the sets.
    set_bits: u32,
    /// The context (page size and PCID) of each number.
    contexts: Vec<u64>,
}

impl Packed {
    /// Whether a set is at most a line, and what tells the pages of a set apart leaves room for a context.
    fn takes(geometry: ArrayGeometry) -> bool {
        let nr_sets = geometry.nr_sets();
        nr_sets.is_power_of_two() && nr_sets >= 16 && geometry.ways as usize <= LINE_WAYS
    }

    fn new(geometry: ArrayGeometry) -> Self {
        Self {
            geometry,
            lines: vec![Line([NONE; LINE_WAYS]); geometry.nr_sets() as usize],
            set_bits: geometry.nr_sets().trailing_zeros(),
            contexts: Vec::new(),
        }
    }

    /// Bits of a packed key that are the page's, without those that select the set.
    const fn page_bits(&self) -> u32 {
        PACKED_NUMBER_BITS - self.set_bits
    }

    /// How many contexts can have a number; one less than there is room for, so that no key is packed to [`NONE`].
    const fn nr_numbers(&self) -> usize {
        (1 << (u32::BITS - self.page_bits())) - 1
    }

    /// The sets in slices, for one context.
    fn split(&mut self, context: u64, nr_groups: usize) -> Vec<Slice<'_>> {
        let Some(number) = self.number(context) else { return Vec::new() };
        let (base, set_bits, ways) = (number << self.page_bits(), self.set_bits, self.geometry.ways as usize);
        let nr_sets = self.lines.len();
        let mut rest = self.lines.as_mut_slice();
        let mut first = 0;
        (0..nr_groups)
            .map(|group| {
                let nr_mine = (first..nr_sets).take_while(|&set| group_of(set, nr_groups, set_bits) == group).count();
                let (lines, others) = std::mem::take(&mut rest).split_at_mut(nr_mine);
                rest = others;
                first += nr_mine;
                Slice {
                    lines,
                    first: first - nr_mine,
                    nr_sets,
                    set_bits,
                    context,
                    base,
                    ways,
                    nr_misses: 0,
                    scratch: Vec::new(),
                }
            })
            .collect()
    }

    /// The number of a context, given now if it has none; `None` when all are taken.
    fn number(&mut self, context: u64) -> Option<u32> {
        if let Some(number) = self.contexts.iter().position(|&other| other == context) {
            return Some(number as u32);
        }
        if self.contexts.len() == self.nr_numbers() {
            return None;
        }
        self.contexts.push(context);
        Some(self.contexts.len() as u32 - 1)
    }

    /// The set of a key, and the key within it.
    fn pack(&mut self, key: Key) -> Option<(usize, u32)> {
        let number = key.number();
        if number >> PACKED_NUMBER_BITS != 0 {
            return None;
        }
        let context = self.number(context_of(key.0))?;
        let set = number as usize & (self.lines.len() - 1);
        Some((set, context << self.page_bits() | (number >> self.set_bits) as u32))
    }

    /// Accesses until one cannot be packed or is of a size that is not `held`; returns how many were done.
    fn access(&mut self, keys: &[u64], held: [bool; 3], misses: &mut Vec<u64>) -> usize {
        let Some(&first) = keys.first() else { return 0 };
        // The contexts of the keys, each with its number where packed keys have it; most often there is one.
        let mut bases: SmallVec<[(u64, u32); 4]> = SmallVec::new();
        let mut can_pack = |key: u64| {
            let context = context_of(key);
            if Key(key).number() >> PACKED_NUMBER_BITS != 0 {
                return false;
            }
            // Which of them it is, nobody could predict.
            if bases.iter().map(|&(other, _)| u32::from(other == context)).sum::<u32>() > 0 {
                return true;
            }
            let number = if held[Key(key).size_index()] { self.number(context) } else { None };
            bases.extend(number.map(|number| (context, number << self.page_bits())));
            number.is_some()
        };
        let is_one_context = packed::differing_bits(first, keys) >> PACKED_NUMBER_BITS == 0;
        let done = if is_one_context && can_pack(first) {
            keys.len()
        } else {
            keys.iter().take_while(|&&key| can_pack(key)).count()
        };
        if bases.is_empty() {
            return 0;
        }
        let mut out = Misses::behind(misses, done);
        let packing = Packing { first_set: 0, set_bits: self.set_bits, bases: &bases };
        packed::access_lines(&mut self.lines, self.geometry.ways as usize, &keys[..done], packing, &mut out);
        out.keep();
        done
    }

    fn invalidate(&mut self, key: Key) {
        let Some((set, packed)) = self.pack(key) else { return };
        let line = &mut self.lines[set].0;
        if let Some(way) = line.iter().position(|&other| other == packed) {
            line.copy_within(way + 1.., way);
            line[LINE_WAYS - 1] = NONE;
        }
    }

    fn flush_pcid(&mut self, pcid: u16) {
        let shift = self.page_bits();
        let is_dropped: Vec<bool> =
            self.contexts.iter().map(|&context| Key(context << NUMBER_BITS).pcid() == pcid).collect();
        if is_dropped.iter().all(|&dropped| dropped) {
            self.flush_all();
            return;
        }
        if is_dropped.iter().all(|&dropped| !dropped) {
            return;
        }
        for Line(line) in &mut self.lines {
            let mut kept = 0;
            for way in 0..LINE_WAYS {
                let packed = line[way];
                if packed == NONE {
                    break;
                }
                line[kept] = packed;
                kept += usize::from(!is_dropped[(packed >> shift) as usize]);
            }
            line[kept..].fill(NONE);
        }
    }

    fn flush_all(&mut self) {
        self.lines.fill(Line([NONE; LINE_WAYS]));
        self.contexts.clear();
    }

    /// The same contents with whole keys.
    fn unpack(&self) -> Ordered {
        let mut array = Ordered::new(self.geometry, true);
        let sets = array.keys_mut().chunks_exact_mut(self.geometry.ways as usize);
        for ((set, keys), Line(line)) in sets.enumerate().zip(&self.lines) {
            for (key, &packed) in keys.iter_mut().zip(line) {
                *key = if packed == NONE {
                    EMPTY
                } else {
                    let context = self.contexts[(packed >> self.page_bits()) as usize];
                    let page = u64::from(packed) & ((1 << self.page_bits()) - 1);
                    context << NUMBER_BITS | page << self.set_bits | set as u64
                };
            }
        }
        array
    }
}
