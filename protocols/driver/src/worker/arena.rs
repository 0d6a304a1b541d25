//! The table of a worker's links.

use broker_core::LinkId;

/// Values under [`LinkId`]s that are never given out twice: the low half is a slot, the high half counts how often
/// the slot has been used. A slot whose count is used up is not used again.
#[derive(Debug)]
pub(super) struct Arena<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Arena<T> {
    pub(super) fn new() -> Arena<T> {
        Arena {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds the value that `make` makes for its id.
    pub(super) fn insert(&mut self, make: impl FnOnce(LinkId) -> T) -> LinkId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            u32::try_from(self.slots.len() - 1).expect("4 billion sockets do not fit one process")
        });
        let slot = &mut self.slots[index as usize];
        let id = LinkId(u64::from(slot.generation) << 32 | u64::from(index));
        slot.value = Some(make(id));
        self.len += 1;
        id
    }

    /// `None` if the value is gone.
    pub(super) fn get(&self, id: LinkId) -> Option<&T> {
        let slot = self.slots.get(id.0 as u32 as usize)?;
        slot.value
            .as_ref()
            .filter(|_| slot.generation == (id.0 >> 32) as u32)
    }

    /// `None` if the value is gone.
    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.0 as u32 as usize)?;
        slot.value
            .as_mut()
            .filter(|_| slot.generation == (id.0 >> 32) as u32)
    }

    /// `None` if the value is gone already.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<T> {
        self.get(id)?;
        let index = id.0 as u32;
        let slot = &mut self.slots[index as usize];
        if slot.generation < u32::MAX {
            slot.generation += 1;
            self.free.push(index);
        }
        self.len -= 1;
        slot.value.take()
    }

    /// All values with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = LinkId(u64::from(slot.generation) << 32 | index as u64);
            Some((id, slot.value.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_given_out_twice() {
        let mut arena = Arena::new();
        let first = arena.insert(|id| id);
        let second = arena.insert(|id| id);
        assert_eq!(arena.remove(first), Some(first));
        let third = arena.insert(|id| id);
        assert!(third != first && third != second);
        assert_eq!((arena.get(first), arena.get(third)), (None, Some(&third)));
        assert_eq!((arena.remove(first), arena.len()), (None, 2));
        assert_eq!(
            arena.iter().map(|(id, _)| id).collect::<Vec<_>>(),
            [third, second]
        );
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let mut arena = Arena::new();
        arena.insert(|_| ());
        arena.slots[0].generation = u32::MAX;
        let last = arena.iter().next().map(|(id, ())| id).expect("just inserted");
        arena.remove(last);
        assert_eq!(arena.insert(|_| ()), LinkId(1));
        assert_eq!((arena.len(), arena.get(last)), (1, None));
    }
}
