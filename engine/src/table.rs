//! A table of things named by a small number that is given again after removal.

/// Slots, some empty; the last one freed is the next one used.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    max: usize,
}

impl<T> Table<T> {
    /// Room for `max`; memory for `reserve` is taken now.
    pub(crate) fn new(reserve: usize, max: usize) -> Table<T> {
        Table {
            slots: Vec::with_capacity(reserve),
            free: Vec::with_capacity(reserve),
            max,
        }
    }

    /// Puts it in; gives it back when the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<u32, T> {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(value);
            return Ok(slot);
        }
        if self.slots.len() == self.max {
            return Err(value);
        }
        self.slots.push(Some(value));
        Ok(self.slots.len() as u32 - 1)
    }

    /// The slot the next [`Table::insert`] uses, if there is room.
    pub(crate) fn next_slot(&self) -> Option<u32> {
        let fresh = (self.slots.len() < self.max).then_some(self.slots.len() as u32);
        self.free.last().copied().or(fresh)
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(value)
    }

    /// One past the highest slot that was ever used.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many are in it.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, value)| Some((slot as u32, value.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_gives_the_value_back() {
        let mut table = Table::new(1, 2);
        assert_eq!((table.insert('a'), table.next_slot()), (Ok(0), Some(1)));
        assert_eq!((table.insert('b'), table.next_slot()), (Ok(1), None));
        assert_eq!(table.insert('c'), Err('c'));
        assert_eq!((table.remove(0), table.next_slot()), (Some('a'), Some(0)));
        assert_eq!(table.remove(0), None);
        assert_eq!((table.insert('d'), table.iter().count()), (Ok(0), 2));
        assert_eq!(
            table.iter().map(|(slot, _)| slot).collect::<Vec<_>>(),
            [0, 1]
        );
    }
}
