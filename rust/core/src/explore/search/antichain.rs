//! Antichains: for each base the vectors none of which includes another.
//!
//! Nearly every base has one vector, so short chains are lists in one arena. Where a chain grows long it gets an index,
//! sliced by bits: for each bit of a vector, one word tells which of 64 vectors have it, so that 64 comparisons are a few
//! ands, most of which end early.

use super::PackedState;

/// A chain that is longer is indexed.
const LIST: u32 = 24;
const NONE: u32 = u32::MAX;

/// The number of a vector: valid until it is released.
pub(super) type VectorId = u32;

struct Entry<S> {
    vector: S,
    next: u32,
    queued: bool,
    dead: bool,
}

/// One base's vectors.
#[derive(Clone, Copy)]
struct Chain {
    head: u32,
    len: u32,
    /// Number of the index; [`NONE`] while the chain is a list.
    index: u32,
}

/// 64 vectors by bits: word `b` of `slices` says which have bit `b`.
struct Block {
    slices: Box<[u64]>,
    alive: u64,
    ids: Box<[VectorId; 64]>,
}

#[derive(Default)]
struct Index {
    blocks: Vec<Block>,
    /// No block before this has room.
    room: usize,
}

/// All chains of a search.
pub(super) struct Antichains<S> {
    /// Where the monotone bits are: word and bit.
    bits: Vec<(usize, u32)>,
    chains: Vec<Chain>,
    entries: Vec<Entry<S>>,
    free: Vec<u32>,
    indexes: Vec<Index>,
    index_bytes: usize,
    live: u64,
    widest: u32,
    /// Scratch: the bits that the vector in hand has, and those it has not.
    has: Vec<u32>,
    lacks: Vec<u32>,
}

impl<S: PackedState> Antichains<S> {
    pub(super) fn new(monotone: S) -> Self {
        let bits = monotone
            .words()
            .iter()
            .enumerate()
            .flat_map(|(word, &value)| (0..64).filter(move |bit| value >> bit & 1 != 0).map(move |bit| (word, bit)))
            .collect();
        Self {
            bits,
            chains: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            indexes: Vec::new(),
            index_bytes: 0,
            live: 0,
            widest: 0,
            has: Vec::new(),
            lacks: Vec::new(),
        }
    }

    /// A new chain, empty.
    pub(super) fn open(&mut self) -> u32 {
        self.chains.push(Chain { head: NONE, len: 0, index: NONE });
        self.chains.len() as u32 - 1
    }

    /// Vectors in all chains.
    pub(super) const fn live(&self) -> u64 {
        self.live
    }

    /// The longest that a chain ever was.
    pub(super) const fn widest(&self) -> u32 {
        self.widest
    }

    pub(super) fn bytes(&self) -> usize {
        self.chains.capacity() * size_of::<Chain>()
            + self.entries.capacity() * size_of::<Entry<S>>()
            + self.free.capacity() * size_of::<u32>()
            + self.index_bytes
    }

    /// Adds `vector` to a chain and takes out what it includes; `None` if it is included in one that is there.
    ///
    /// The vector counts as queued until [`Antichains::take`] is called with its number.
    pub(super) fn add(&mut self, chain: u32, vector: S) -> Option<VectorId> {
        let index = self.chains[chain as usize].index;
        if index == NONE {
            if self.in_list(chain, vector) {
                return None;
            }
            self.kill_in_list(chain, vector);
        } else {
            self.sort_bits(vector);
            if self.indexes[index as usize].includes(&self.has) {
                return None;
            }
            self.kill_in_index(chain, index);
        }
        let id = self.new_entry(vector);
        let place = &mut self.chains[chain as usize];
        place.len += 1;
        let (len, index) = (place.len, place.index);
        self.live += 1;
        self.widest = self.widest.max(len);
        if index == NONE {
            self.entries[id as usize].next = place.head;
            place.head = id;
            if len > LIST {
                self.build_index(chain);
            }
        } else {
            self.put(index, id);
        }
        Some(id)
    }

    /// Takes a vector from the queue; false if it was taken out of its chain meanwhile.
    pub(super) fn take(&mut self, id: VectorId) -> bool {
        let entry = &mut self.entries[id as usize];
        entry.queued = false;
        if entry.dead {
            self.free.push(id);
            return false;
        }
        true
    }

    /// The vectors of a chain.
    pub(super) fn vectors(&self, chain: u32) -> Vec<S> {
        let chain = self.chains[chain as usize];
        let mut vectors = Vec::new();
        if chain.index == NONE {
            let mut at = chain.head;
            while at != NONE {
                vectors.push(self.entries[at as usize].vector);
                at = self.entries[at as usize].next;
            }
        } else {
            for block in &self.indexes[chain.index as usize].blocks {
                let lanes = (0..64).filter(|lane| block.alive >> lane & 1 != 0);
                vectors.extend(lanes.map(|lane| self.entries[block.ids[lane] as usize].vector));
            }
        }
        vectors
    }

    fn new_entry(&mut self, vector: S) -> VectorId {
        let entry = Entry { vector, next: NONE, queued: true, dead: false };
        if let Some(id) = self.free.pop() {
            self.entries[id as usize] = entry;
            id
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        }
    }

    fn release(&mut self, id: VectorId) {
        let entry = &mut self.entries[id as usize];
        self.live -= 1;
        if entry.queued {
            entry.dead = true; // its number is still in the queue
        } else {
            self.free.push(id);
        }
    }

    fn in_list(&self, chain: u32, vector: S) -> bool {
        let mut at = self.chains[chain as usize].head;
        while at != NONE {
            let entry = &self.entries[at as usize];
            if vector.is_subset(entry.vector) {
                return true;
            }
            at = entry.next;
        }
        false
    }

    fn kill_in_list(&mut self, chain: u32, vector: S) {
        let mut kept = NONE; // the last entry that stays
        let mut at = self.chains[chain as usize].head;
        while at != NONE {
            let next = self.entries[at as usize].next;
            if self.entries[at as usize].vector.is_subset(vector) {
                if kept == NONE {
                    self.chains[chain as usize].head = next;
                } else {
                    self.entries[kept as usize].next = next;
                }
                self.chains[chain as usize].len -= 1;
                self.release(at);
            } else {
                kept = at;
            }
            at = next;
        }
    }

    /// Sorts the numbers of the monotone bits into those that `vector` has and those that it lacks.
    fn sort_bits(&mut self, vector: S) {
        self.has.clear();
        self.lacks.clear();
        for (number, &(word, bit)) in self.bits.iter().enumerate() {
            let list = if vector.words()[word] >> bit & 1 != 0 { &mut self.has } else { &mut self.lacks };
            list.push(number as u32);
        }
    }

    fn kill_in_index(&mut self, chain: u32, index: u32) {
        let mut killed = Vec::new();
        let index = &mut self.indexes[index as usize];
        for (number, block) in index.blocks.iter_mut().enumerate() {
            let mut included = block.alive;
            for &bit in &self.lacks {
                included &= !block.slices[bit as usize];
                if included == 0 {
                    break;
                }
            }
            if included != 0 {
                block.alive &= !included;
                index.room = index.room.min(number);
                killed.extend((0..64).filter(|lane| included >> lane & 1 != 0).map(|lane| block.ids[lane]));
            }
        }
        self.chains[chain as usize].len -= killed.len() as u32;
        for id in killed {
            self.release(id);
        }
    }

    fn build_index(&mut self, chain: u32) {
        self.indexes.push(Index::default());
        let index = self.indexes.len() as u32 - 1;
        let mut at = self.chains[chain as usize].head;
        while at != NONE {
            let vector = self.entries[at as usize].vector;
            self.sort_bits(vector);
            self.put(index, at);
            at = self.entries[at as usize].next;
        }
        self.chains[chain as usize].index = index;
        self.chains[chain as usize].head = NONE;
        self.sort_bits(S::VACANT);
    }

    /// Puts a vector whose bits are sorted (see [`Self::sort_bits`]) into an index.
    fn put(&mut self, index: u32, id: VectorId) {
        let index = &mut self.indexes[index as usize];
        while index.blocks.get(index.room).is_some_and(|block| block.alive == u64::MAX) {
            index.room += 1;
        }
        if index.room == index.blocks.len() {
            let slices = vec![0; self.bits.len()].into_boxed_slice();
            index.blocks.push(Block { slices, alive: 0, ids: Box::new([NONE; 64]) });
            self.index_bytes += size_of::<Block>() + self.bits.len() * 8 + 64 * size_of::<VectorId>();
        }
        let block = &mut index.blocks[index.room];
        let lane = block.alive.trailing_ones() as usize;
        for &bit in &self.has {
            block.slices[bit as usize] |= 1 << lane;
        }
        for &bit in &self.lacks {
            block.slices[bit as usize] &= !(1 << lane);
        }
        block.alive |= 1 << lane;
        block.ids[lane] = id;
    }
}

impl Index {
    /// Whether some vector has all of these bits.
    fn includes(&self, bits: &[u32]) -> bool {
        self.blocks.iter().rev().any(|block| {
            let mut including = block.alive;
            for &bit in bits.iter().rev() {
                including &= block.slices[bit as usize];
                if including == 0 {
                    return false;
                }
            }
            including != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of numbers, always the same.
    fn numbers() -> impl Iterator<Item = u64> {
        std::iter::successors(Some(1_u64), |n| Some(n.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1)))
            .map(|n| n >> 20)
    }

    #[test]
    fn an_index_keeps_what_a_list_of_all_vectors_keeps() {
        for width in [8, 16, 40] {
            let mask = [0, (1_u64 << width) - 1];
            let mut antichains = Antichains::new(mask);
            let chain = antichains.open();
            let mut plain: Vec<u64> = Vec::new();
            for n in numbers().take(3000).map(|n| n & mask[1]) {
                let new = !plain.iter().any(|e| n & !e == 0);
                let id = antichains.add(chain, [0, n]);
                assert_eq!(id.is_some(), new);
                if new {
                    plain.retain(|e| e & !n != 0);
                    plain.push(n);
                }
                if n % 3 == 0
                    && let Some(id) = id
                {
                    assert!(antichains.take(id));
                }
                assert_eq!(antichains.live(), plain.len() as u64);
            }
            let mut kept: Vec<u64> = antichains.vectors(chain).iter().map(|vector| vector[1]).collect();
            kept.sort_unstable();
            plain.sort_unstable();
            assert_eq!(kept, plain);
            assert!(width < 16 || antichains.widest() > LIST, "the index was not tried");
        }
    }
}
