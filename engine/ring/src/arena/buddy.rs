//! A buddy allocator over granule indices, with short stacks of recently freed blocks in front.
//!
//! ```text
//!  free ─► recent[order] (LIFO, hot in the cache) ─ full ─► merge with the buddy ─► lists[order]
//!  alloc ◄─ recent[order] ◄─ lists[order] ◄─ split a larger one ◄─ merge all recent, again
//! ```
//! A block on a recent stack is not merged, so that steady traffic of one size neither splits nor
//! merges. When nothing large enough is left all stacks are merged once and the search repeated.

/// Orders 0 (4 KiB) to 14 (64 MiB).
const ORDERS: usize = 15;
/// Blocks a recent stack keeps.
const RECENT: usize = 64;
/// Bytes (in granules) a recent stack keeps at most: large blocks are worth merging at once.
const RECENT_GRANULES: usize = 2048;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    prev: u32,
    /// Order + 1 while it heads a block of `lists`, else 0.
    listed: u8,
}

pub(super) struct Buddy {
    nodes: Box<[Node]>,
    lists: [u32; ORDERS],
    /// Bit n: `lists[n]` is not empty.
    available: u32,
    recent: Box<[Recent; ORDERS]>,
}

#[derive(Clone, Copy)]
struct Recent {
    count: usize,
    blocks: [u32; RECENT],
}

impl Buddy {
    pub(super) fn new(granules: usize) -> Buddy {
        let node = Node {
            next: NONE,
            prev: NONE,
            listed: 0,
        };
        let mut buddy = Buddy {
            nodes: vec![node; granules].into_boxed_slice(),
            lists: [NONE; ORDERS],
            available: 0,
            recent: Box::new(
                [Recent {
                    count: 0,
                    blocks: [NONE; RECENT],
                }; ORDERS],
            ),
        };
        // From the end, so that the lowest addresses are handed out first.
        let largest = 1 << (ORDERS - 1);
        let whole = granules / largest * largest;
        let mut end = granules;
        while end > whole {
            let order = (end.trailing_zeros() as usize).min(ORDERS - 1);
            end -= 1 << order;
            buddy.push(end as u32, order);
        }
        while end > 0 {
            end -= largest;
            buddy.push(end as u32, ORDERS - 1);
        }
        buddy
    }

    /// The first granule of a block of `1 << order` granules.
    pub(super) fn alloc(&mut self, order: u8) -> Option<usize> {
        let order = usize::from(order);
        let recent = &mut self.recent[order];
        if recent.count > 0 {
            recent.count -= 1;
            return Some(recent.blocks[recent.count] as usize);
        }
        self.split(order).or_else(|| {
            self.merge_recent();
            self.split(order)
        })
    }

    /// Takes back what `alloc` gave, with the same order.
    pub(super) fn free(&mut self, index: usize, order: u8) {
        let order = usize::from(order);
        let recent = &mut self.recent[order];
        if recent.count < RECENT.min(RECENT_GRANULES >> order) {
            recent.blocks[recent.count] = index as u32;
            recent.count += 1;
        } else {
            self.merge(index as u32, order);
        }
    }

    fn split(&mut self, order: usize) -> Option<usize> {
        let larger = self.available >> order;
        if larger == 0 {
            return None;
        }
        let mut have = order + larger.trailing_zeros() as usize;
        let index = self.lists[have];
        self.remove(index, have);
        while have > order {
            have -= 1;
            self.push(index + (1 << have), have);
        }
        Some(index as usize)
    }

    fn merge(&mut self, mut index: u32, mut order: usize) {
        while order + 1 < ORDERS {
            let buddy = index ^ (1 << order);
            let free = self
                .nodes
                .get(buddy as usize)
                .is_some_and(|n| n.listed == order as u8 + 1);
            if !free {
                break;
            }
            self.remove(buddy, order);
            index = index.min(buddy);
            order += 1;
        }
        self.push(index, order);
    }

    fn merge_recent(&mut self) {
        for order in 0..ORDERS {
            while self.recent[order].count > 0 {
                self.recent[order].count -= 1;
                let index = self.recent[order].blocks[self.recent[order].count];
                self.merge(index, order);
            }
        }
    }

    fn push(&mut self, index: u32, order: usize) {
        let head = self.lists[order];
        if head != NONE {
            self.nodes[head as usize].prev = index;
        }
        self.nodes[index as usize] = Node {
            next: head,
            prev: NONE,
            listed: order as u8 + 1,
        };
        self.lists[order] = index;
        self.available |= 1 << order;
    }

    fn remove(&mut self, index: u32, order: usize) {
        let Node { next, prev, listed } = self.nodes[index as usize];
        assert_eq!(
            usize::from(listed),
            order + 1,
            "block {index} is not free at order {order}"
        );
        self.nodes[index as usize].listed = 0;
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev != NONE {
            self.nodes[prev as usize].next = next;
        } else {
            self.lists[order] = next;
            if next == NONE {
                self.available &= !(1 << order);
            }
        }
    }
}
