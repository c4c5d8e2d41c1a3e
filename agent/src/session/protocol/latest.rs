//! Work that is done one piece at a time, and of which only the latest counts: what is superseded while it waits is never
//! done. Pure.

/// At most one piece of work that is being done, and one that waits.
#[derive(Debug)]
pub(super) struct Latest<T> {
    busy: bool,
    next: Option<T>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self {
            busy: false,
            next: None,
        }
    }
}

impl<T> Latest<T> {
    /// There is work: it is returned when it may be done at once, else it replaces what waits.
    pub(super) fn offer(&mut self, work: T) -> Option<T> {
        if self.busy {
            self.next = Some(work);
            return None;
        }
        self.busy = true;
        Some(work)
    }

    /// The work that was being done has ended: the next, when some waits.
    pub(super) fn done(&mut self) -> Option<T> {
        let next = self.next.take();
        self.busy = next.is_some();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_superseded_is_never_done() {
        let mut work = Latest::default();
        assert_eq!(work.offer(1), Some(1));
        assert_eq!((work.offer(2), work.offer(3)), (None, None));
        assert_eq!(work.done(), Some(3));
        assert_eq!(work.offer(4), None, "3 is being done");
        assert_eq!((work.done(), work.done()), (Some(4), None));
        assert_eq!(work.offer(5), Some(5));
    }
}
