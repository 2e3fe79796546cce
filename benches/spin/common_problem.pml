/* The common problem for SPIN: the model of rust/core/src/explore/common_problem at the same grain, so that both engines store the
 * same states. One d_step is one step; where a process stands is its program counter.
 *
 * spin -a -DUSERS=2 -DPAGES=3 -DMPROTECT=0 -DRECLAIM=0 common_problem.pml
 * gcc -O2 -DNOREDUCE -DSAFETY -o pan pan.c && ./pan -n -E -m100000 -w26
 */
#ifndef USERS
#define USERS 2
#endif
#ifndef PAGES
#define PAGES 3          /* 1 to 4 */
#endif
#ifndef MPROTECT
#define MPROTECT 0       /* the unmapper: 0 zap, 1 mprotect */
#endif
#ifndef RECLAIM
#define RECLAIM 0        /* the cleaner: 0 page_mkclean and writeback, 1 reclaim */
#endif
#ifndef FLUSH_UNDER_LOCK
#define FLUSH_UNDER_LOCK 1
#endif
#ifndef DELAY_RMAP
#define DELAY_RMAP 1
#endif
#ifndef FLUSH_BATCHED
#define FLUSH_BATCHED 1
#endif

#define EVERY_CPU ((1 << USERS) - 1)

/* bits of a PTE */
#define P 1
#define W 2
#define D 4
#define A 8
/* bits of a page */
#define RMAP 1
#define MAP_REF 2
#define CACHE_REF 4
#define PG_DIRTY 8
#define NEWER 16         /* ghost: data newer than storage */
#define UNMAPPER_KNOWS 32 /* ghost: the unmapper is about to call set_page_dirty() */
#define CLEANER_KNOWS 64 /* ghost: the cleaner is about to, or is writing the page out */
#define LOCKED 128       /* by the cleaner */
/* TLB entries */
#define NOTHING 0
#define READ_ONLY 1
#define WRITABLE 2
#define STORES 3

byte pte[PAGES] = P | W;
byte page[PAGES] = RMAP | MAP_REF | CACHE_REF;
byte tlb[USERS * PAGES];
byte fault[USERS];       /* 0, page + 1 with its locks held, PAGES + 1 before the unlock */
byte ptl;                /* 0 free, 1 unmapper, 2 cleaner, 3 fault */
byte unmap_ipi, clean_ipi;
byte at;                 /* the cleaner's page */
bit batched, started, returned, freed;

#define IS(x, bits) (((x) & (bits)) != 0)
#define ADD(x, bits) x = (x) | (bits)
#define DEL(x, bits) x = (x) & (255 - (bits))

#if PAGES == 1
#define ALL_PAGES(what) what(0)
#define SOME_PAGE(is) (is(0))
#elif PAGES == 2
#define ALL_PAGES(what) what(0); what(1)
#define SOME_PAGE(is) (is(0) || is(1))
#elif PAGES == 3
#define ALL_PAGES(what) what(0); what(1); what(2)
#define SOME_PAGE(is) (is(0) || is(1) || is(2))
#else
#define ALL_PAGES(what) what(0); what(1); what(2); what(3)
#define SOME_PAGE(is) (is(0) || is(1) || is(2) || is(3))
#endif
#if USERS == 1
#define SOME_USER(is) (is(0))
#elif USERS == 2
#define SOME_USER(is) (is(0) || is(1))
#elif USERS == 3
#define SOME_USER(is) (is(0) || is(1) || is(2))
#else
#define SOME_USER(is) (is(0) || is(1) || is(2) || is(3))
#endif

#define UNRMAP(p) DEL(page[p], RMAP)
#define UNREF(p) DEL(page[p], MAP_REF)
#define REFERENCED(p) IS(page[p], MAP_REF)

/* A step under `guard` that goes on to the next PTE. */
#define STEP_TO_NEXT(guard, effect) \
  :: d_step { (guard) && i + 1 < PAGES -> effect; i++ }; goto next_pte \
  :: d_step { (guard) && i + 1 == PAGES -> effect; i = 0 }; goto end_of_range

active proctype unmapper()
{
  byte i;
  bit flush;

  d_step { ptl == 0 -> ptl = 1; started = 1 };
#if FLUSH_BATCHED
  if
  :: d_step { batched -> unmap_ipi = EVERY_CPU };
     d_step { unmap_ipi == 0 -> batched = 0 }
  :: d_step { !batched -> skip }
  fi;
#endif
next_pte:
  if
  STEP_TO_NEXT(!IS(pte[i], P), skip)
#if MPROTECT
  STEP_TO_NEXT(IS(pte[i], P), DEL(pte[i], W); flush = 1)
#else
  :: d_step { IS(pte[i], P) && IS(pte[i], D) ->
       pte[i] = 0; flush = flush | FLUSH_UNDER_LOCK; ADD(page[i], UNMAPPER_KNOWS) };
     goto set_dirty
  :: d_step { IS(pte[i], P) && !IS(pte[i], D) -> pte[i] = 0 };
     goto remove_rmap
#endif
  fi;
#if !MPROTECT
set_dirty:
#if DELAY_RMAP
  if
  STEP_TO_NEXT(true, ADD(page[i], PG_DIRTY); DEL(page[i], UNMAPPER_KNOWS))
  fi;
#else
  if
  :: d_step { true -> ADD(page[i], PG_DIRTY); DEL(page[i], UNMAPPER_KNOWS) }
  fi;
#endif
remove_rmap:
  if
  STEP_TO_NEXT(true, UNRMAP(i))
  fi;
#endif
end_of_range:
#if MPROTECT
  if /* SPIN wants no jump straight to a d_step */
  :: d_step { true -> skip }
  fi;
#else
  if
  :: d_step { flush -> unmap_ipi = EVERY_CPU };
     d_step { unmap_ipi == 0 -> skip };
#if DELAY_RMAP
     d_step { true -> ALL_PAGES(UNRMAP) }
#endif
  :: d_step { !flush -> skip }
  fi;
#endif
  d_step { true -> ptl = 0 };
#if MPROTECT
#define MUST_FLUSH flush
#else
#define MUST_FLUSH (!flush && SOME_PAGE(REFERENCED))
#endif
  if
  :: d_step { MUST_FLUSH -> unmap_ipi = EVERY_CPU; flush = 0 };
     d_step { unmap_ipi == 0 -> skip }
  :: d_step { !(MUST_FLUSH) -> flush = 0 }
  fi;
#if MPROTECT
  d_step { true -> returned = 1 }
#else
  d_step { true -> ALL_PAGES(UNREF); returned = 1 }
#endif
}

#define FAULTS_HERE(cpu) (fault[cpu] == at + 1)
#define NEXT_PAGE(guard, effect) \
  :: d_step { (guard) && at + 1 < PAGES -> effect; DEL(page[at], LOCKED); at++ }; goto mapped_test \
  :: d_step { (guard) && at + 1 == PAGES -> effect; DEL(page[at], LOCKED); at = 0 }; goto end_of_pages

active proctype cleaner()
{
  bit was_dirty, batch_writable, batch_required;

mapped_test:
  if
  :: d_step { !SOME_USER(FAULTS_HERE) && IS(page[at], RMAP) -> ADD(page[at], LOCKED) }
  :: d_step { !SOME_USER(FAULTS_HERE) && !IS(page[at], RMAP) -> ADD(page[at], LOCKED) }; goto dirty_test
  fi;
  d_step { ptl == 0 -> ptl = 2 };
#if !RECLAIM
  if
  :: d_step { IS(pte[at], P) && IS(pte[at], W | D) ->
       was_dirty = IS(pte[at], D);
       if :: was_dirty -> ADD(page[at], CLEANER_KNOWS) :: else fi;
       DEL(pte[at], P | W | D); clean_ipi = EVERY_CPU };
     d_step { clean_ipi == 0 -> ADD(pte[at], P) }
  :: d_step { !(IS(pte[at], P) && IS(pte[at], W | D)) -> skip }
  fi;
  if
  :: d_step { was_dirty -> ptl = 0 };
     d_step { true -> ADD(page[at], PG_DIRTY); DEL(page[at], CLEANER_KNOWS); was_dirty = 0 }
  :: d_step { !was_dirty -> ptl = 0 }
  fi;
dirty_test:
  if
  NEXT_PAGE(!IS(page[at], PG_DIRTY), skip)
  :: d_step { IS(page[at], PG_DIRTY) -> DEL(page[at], PG_DIRTY); ADD(page[at], CLEANER_KNOWS) }
  fi;
  if
  NEXT_PAGE(true, DEL(page[at], NEWER | CLEANER_KNOWS))
  fi;
end_of_pages:
  false
#else
  if
  :: d_step { !IS(pte[at], P) -> skip };
     goto unlock
  :: d_step { IS(pte[at], P) && IS(pte[at], A) -> DEL(pte[at], A) };
     d_step { true -> ptl = 0; DEL(page[at], LOCKED) };
     goto mapped_test
  :: d_step { IS(pte[at], P) && !IS(pte[at], A) && IS(pte[at], D) ->
       pte[at] = 0; batched = 1; batch_required = 1; batch_writable = 1; ADD(page[at], CLEANER_KNOWS) };
     d_step { true -> ADD(page[at], PG_DIRTY); DEL(page[at], CLEANER_KNOWS) }
  :: d_step { IS(pte[at], P) && !IS(pte[at], A) && !IS(pte[at], D) ->
       pte[at] = 0; batched = 1; batch_required = 1 }
  fi;
  d_step { true -> DEL(page[at], RMAP | MAP_REF) };
unlock:
  if
  :: d_step { true -> ptl = 0 }
  fi;
dirty_test:
  if
  :: d_step { !IS(page[at], PG_DIRTY) -> skip }; goto remove_mapping
  :: d_step { IS(page[at], PG_DIRTY) && !batch_writable -> skip }
  :: d_step { IS(page[at], PG_DIRTY) && batch_writable -> clean_ipi = EVERY_CPU };
     d_step { clean_ipi == 0 -> batch_writable = 0; batch_required = 0 }
  fi;
  d_step { true -> DEL(page[at], PG_DIRTY); ADD(page[at], CLEANER_KNOWS) };
  d_step { true -> DEL(page[at], NEWER | CLEANER_KNOWS) };
remove_mapping:
  if
  NEXT_PAGE(true, if :: !IS(page[at], MAP_REF | PG_DIRTY) -> DEL(page[at], CACHE_REF) :: else fi)
  fi;
end_of_pages:
  if
  :: d_step { batch_required -> clean_ipi = EVERY_CPU };
     d_step { clean_ipi == 0 -> batch_writable = 0; batch_required = 0 }
  :: d_step { !batch_required -> skip }
  fi;
  d_step { true -> freed = 1 };
  false
#endif
}

#if MPROTECT
#define VMA_WRITABLE (!started)
#else
#define VMA_WRITABLE true
#endif

#define me (_pid - 2)
#define ENTRY(p) tlb[me * PAGES + (p)]
#define DROP(p) ENTRY(p) = NOTHING
#if RECLAIM
#define DROP_BY_CLEANER ALL_PAGES(DROP)
#else
#define DROP_BY_CLEANER DROP(at)
#endif

#define HARDWARE_AND_STORES(p) \
  :: d_step { ENTRY(p) == NOTHING && IS(pte[p], P) -> \
       ENTRY(p) = (IS(pte[p], W) -> (IS(pte[p], D) -> STORES : WRITABLE) : READ_ONLY); ADD(pte[p], A) } \
  :: d_step { ENTRY(p) != NOTHING -> DROP(p) } \
  :: d_step { fault[me] == 0 && ENTRY(p) == WRITABLE && IS(pte[p], P) && IS(pte[p], W) -> \
       ADD(pte[p], D | A); ENTRY(p) = STORES } \
  :: d_step { fault[me] == 0 && ENTRY(p) == STORES && !IS(page[p], NEWER) -> ADD(page[p], NEWER) } \
  :: d_step { fault[me] == 0 && IS(pte[p], P) && !IS(pte[p], W) && ptl == 0 && VMA_WRITABLE && !IS(page[p], LOCKED) -> \
       ptl = 3; fault[me] = (p) + 1 } \
  :: d_step { fault[me] == (p) + 1 -> \
       if :: IS(pte[p], P) && !IS(pte[p], W) && VMA_WRITABLE -> ADD(pte[p], W | D | A); ADD(page[p], PG_DIRTY) \
          :: else fi; \
       fault[me] = PAGES + 1 }

active [USERS] proctype user()
{
  do
  :: d_step { IS(unmap_ipi, 1 << me) -> ALL_PAGES(DROP); DEL(unmap_ipi, 1 << me) }
  :: d_step { IS(clean_ipi, 1 << me) -> DROP_BY_CLEANER; DEL(clean_ipi, 1 << me) }
  :: d_step { fault[me] == PAGES + 1 -> fault[me] = 0; ptl = 0 }
  HARDWARE_AND_STORES(0)
#if PAGES > 1
  HARDWARE_AND_STORES(1)
#endif
#if PAGES > 2
  HARDWARE_AND_STORES(2)
#endif
#if PAGES > 3
  HARDWARE_AND_STORES(3)
#endif
  od
}

#define LOST(p) (IS(page[p], NEWER) && !IS(page[p], PG_DIRTY | UNMAPPER_KNOWS | CLEANER_KNOWS) && \
  !(IS(pte[p], P) && IS(pte[p], D)))
#if MPROTECT
#define PERMITS(entry) ((entry) == STORES)
#else
#define PERMITS(entry) ((entry) != NOTHING)
#endif
#define WRONG(cpu, p) \
  ((freed && !IS(page[p], CACHE_REF) && tlb[(cpu) * PAGES + (p)] != NOTHING) || \
   (returned && PERMITS(tlb[(cpu) * PAGES + (p)])))
#if PAGES == 1
#define WRONG_AT(cpu) WRONG(cpu, 0)
#elif PAGES == 2
#define WRONG_AT(cpu) (WRONG(cpu, 0) || WRONG(cpu, 1))
#elif PAGES == 3
#define WRONG_AT(cpu) (WRONG(cpu, 0) || WRONG(cpu, 1) || WRONG(cpu, 2))
#else
#define WRONG_AT(cpu) (WRONG(cpu, 0) || WRONG(cpu, 1) || WRONG(cpu, 2) || WRONG(cpu, 3))
#endif

active proctype monitor()
{
  d_step { (SOME_PAGE(LOST) || SOME_USER(WRONG_AT)) -> assert(false) }
}
