//! Values by position, in little more memory than they take themselves.

use std::num::NonZeroU32;

/// A position in an [`Arena`], counted from 1: it is another value's only after its own was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(NonZeroU32);

impl At {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Values by position.
#[derive(Debug)]
pub(super) struct Arena<T> {
    values: Vec<Option<T>>,
    /// Where there is none.
    free: Vec<At>,
}

impl<T> Default for Arena<T> {
    fn default() -> Arena<T> {
        Arena { values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    /// Takes a value in; `None` where there are as many as can be told apart.
    pub(super) fn add(&mut self, value: T) -> Option<At> {
        if let Some(at) = self.free.pop() {
            self.values[at.index()] = Some(value); // it was there
            return Some(at);
        }
        let at = u32::try_from(self.values.len() + 1).ok().and_then(NonZeroU32::new)?;
        grow(&mut self.values, 1);
        self.values.push(Some(value));
        Some(At(at))
    }

    pub(super) fn get(&self, at: At) -> Option<&T> {
        self.values.get(at.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: At) -> Option<&mut T> {
        self.values.get_mut(at.index())?.as_mut()
    }

    pub(super) fn remove(&mut self, at: At) -> Option<T> {
        let value = self.values.get_mut(at.index())?.take()?;
        self.free.push(at);
        Some(value)
    }

    /// Removes all that `is_kept` denies.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&T) -> bool) {
        for (at, value) in (1..).filter_map(NonZeroU32::new).map(At).zip(&mut self.values) {
            if value.as_ref().is_some_and(|value| !is_kept(value)) {
                *value = None;
                self.free.push(at);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.values.len()
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.values.capacity()
    }
}

/// Makes room for `more`, and little beyond: most directories are listed once, and grow no more.
pub(super) fn grow<T>(values: &mut Vec<T>, more: usize) {
    if values.capacity() - values.len() < more {
        let least = 64 / size_of::<T>();
        values.reserve_exact(more.max(values.len() / 8).max(least));
    }
}
