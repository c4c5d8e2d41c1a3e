//! What each end may send: counted in bytes, and a price for each piece, so that many small ones are bounded too. Pure.

use aot_proto::limits::{TUNNEL_DATA_BYTES, TUNNEL_PIECE_COST, TUNNEL_WINDOW};

/// What was passed on is granted again once it comes to this much: not every piece costs a message.
const GRANT: u32 = TUNNEL_WINDOW / 4;

/// An end that does not keep to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowBreach;

/// What a piece of this many bytes counts for.
fn cost(bytes: usize) -> u32 {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    bytes.saturating_add(TUNNEL_PIECE_COST)
}

/// What this end may still send.
#[derive(Debug)]
pub(crate) struct SendWindow {
    left: u32,
}

impl SendWindow {
    /// As it is at the start.
    pub(crate) fn new() -> Self {
        Self {
            left: TUNNEL_WINDOW,
        }
    }

    /// Whether a piece of the largest size may be sent: less is waited for, so that a slow reader does not cut a fast stream
    /// into crumbs.
    pub(crate) fn has_room(&self) -> bool {
        self.left >= cost(TUNNEL_DATA_BYTES)
    }

    /// A piece is sent, for which there was room.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(cost(bytes));
    }

    /// The other end has passed on this much.
    ///
    /// # Errors
    /// When that is more than it was sent.
    pub(crate) fn granted(&mut self, more: u32) -> Result<(), WindowBreach> {
        let left = self.left.checked_add(more);
        self.left = left
            .filter(|left| *left <= TUNNEL_WINDOW)
            .ok_or(WindowBreach)?;
        Ok(())
    }
}

/// What the other end may still send, and what it has not been granted again.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    left: u32,
    passed_on: u32,
}

impl ReceiveWindow {
    /// As it is at the start.
    pub(crate) fn new() -> Self {
        Self {
            left: TUNNEL_WINDOW,
            passed_on: 0,
        }
    }

    /// A piece has come.
    ///
    /// # Errors
    /// When it was not granted, or is no piece that an end of ours would send.
    pub(crate) fn received(&mut self, bytes: usize) -> Result<(), WindowBreach> {
        if bytes == 0 || bytes > TUNNEL_DATA_BYTES {
            return Err(WindowBreach);
        }
        self.left = self.left.checked_sub(cost(bytes)).ok_or(WindowBreach)?;
        Ok(())
    }

    /// A piece that has come was passed on; gives what is to be granted now.
    pub(crate) fn passed_on(&mut self, bytes: usize) -> Option<u32> {
        self.passed_on = self.passed_on.saturating_add(cost(bytes));
        if self.passed_on < GRANT {
            return None;
        }
        self.left = self.left.saturating_add(self.passed_on);
        Some(std::mem::take(&mut self.passed_on))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_all_that_is_sent_however_small_the_pieces_are() {
        for bytes in [1, 1000, TUNNEL_DATA_BYTES] {
            let (mut send, mut receive) = (SendWindow::new(), ReceiveWindow::new());
            let mut under_way = 0_u32;
            while send.has_room() {
                send.sent(bytes);
                receive.received(bytes).expect("it was granted");
                under_way += 1;
            }
            let most = TUNNEL_WINDOW / TUNNEL_PIECE_COST;
            assert!((8..=most).contains(&under_way), "{bytes}: {under_way}");
            // Enough comes back to continue, before all of it was passed on.
            let mut granted = 0;
            for _ in 0..under_way {
                if let Some(more) = receive.passed_on(bytes) {
                    send.granted(more).expect("it was sent");
                    granted += 1;
                }
            }
            assert!(send.has_room() && granted >= 3, "{bytes}: {granted}");
        }
    }

    #[test]
    fn an_end_that_sends_or_grants_too_much_is_found_out() {
        assert_eq!(SendWindow::new().granted(1), Err(WindowBreach));
        let mut send = SendWindow::new();
        send.sent(1);
        assert_eq!(send.granted(u32::MAX), Err(WindowBreach));
        for bytes in [0, TUNNEL_DATA_BYTES + 1] {
            assert_eq!(ReceiveWindow::new().received(bytes), Err(WindowBreach));
        }
        let mut receive = ReceiveWindow::new();
        let most = TUNNEL_WINDOW / cost(1);
        for _ in 0..most {
            receive.received(1).expect("it was granted");
        }
        assert_eq!(receive.received(1), Err(WindowBreach));
    }
}
