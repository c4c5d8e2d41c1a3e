//! Which piece goes next, and when, whatever the master acknowledges.

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn id(n: u128) -> RunId {
    RunId::from_parts(1, n)
}

fn ack(n: u128, bytes: u64) -> SpoolAck {
    SpoolAck {
        run_id: id(n).to_string(),
        bytes,
        resend: false,
    }
}

/// Runs 1, 2 and so on with spools of these lengths, of which the master has nothing.
fn of(lengths: &[u64]) -> (SpoolWindow, Instant) {
    let now = Instant::now();
    let mut spools = SpoolWindow::new(now);
    for (n, bytes) in (1..).zip(lengths) {
        spools.resume(id(n), *bytes, 0);
    }
    (spools, now)
}

#[test]
fn what_the_master_could_not_store_is_sent_again() {
    let (mut spools, now) = of(&[50_000]);
    let piece = spools.next_piece(now).expect("there is more");
    spools.sent(piece, 50_000, now);
    assert_eq!(spools.next_piece(now), None);
    let again = SpoolAck {
        resend: true,
        ..ack(1, 20_000)
    };
    spools.acked(&again, now);
    let piece = spools.next_piece(now).expect("from there on");
    assert_eq!((piece.run, piece.offset), (id(1), 20_000));
}

#[test]
fn a_piece_without_a_whole_frame_waits_until_there_is_more() {
    let (mut spools, now) = of(&[3]);
    let piece = spools.next_piece(now).unwrap();
    spools.sent(piece, 0, now);
    assert_eq!(spools.next_piece(now), None);
    spools.grown(id(1), 80, now);
    assert_eq!(spools.next_piece(now).map(|piece| piece.offset), Some(0));
}

#[test]
fn small_pieces_of_a_run_wait_for_its_last_one_and_for_a_master_that_is_behind() {
    let (mut spools, now) = of(&[]);
    let ms = Duration::from_millis(1);
    let mut len = 0;
    let mut grow = |spools: &mut SpoolWindow, bytes: u64, now| {
        len += bytes;
        spools.grown(id(1), len, now);
    };
    grow(&mut spools, 50, now);
    let piece = spools.next_piece(now).expect("the first goes at once");
    spools.sent(piece, 50, now);
    grow(&mut spools, 50, now + ms);
    assert_eq!(spools.next_piece(now + ms), None);
    assert_eq!(spools.piece_at(now + ms), Some(now + ms + TOGETHER));
    assert!(
        spools.next_piece(now + ms + TOGETHER).is_some(),
        "not for long"
    );
    spools.acked(&ack(1, 50), now + 2 * ms);
    assert!(
        spools.next_piece(now + 2 * ms).is_some(),
        "it is acknowledged"
    );

    let piece = spools.next_piece(now + 2 * ms).unwrap();
    spools.sent(piece, 50, now + 2 * ms);
    let late = now + S;
    grow(&mut spools, 50, late);
    let later = late + S;
    assert_eq!(spools.next_piece(later), None, "the master is behind");
    assert_eq!(spools.piece_at(later), None);
    grow(&mut spools, ENOUGH, later);
    let piece = spools.next_piece(later).expect("that is enough");
    spools.sent(piece, 50 + ENOUGH as usize, later);
    grow(&mut spools, 50, later);
    assert_eq!(spools.next_piece(later + S), None);
    spools.acked(&ack(1, 100), later + S);
    assert!(spools.next_piece(later + S).is_some(), "it catches up");
}

#[test]
fn other_runs_do_not_wait_for_one_that_is_not_acknowledged() {
    let (mut spools, now) = of(&[50, 50]);
    let first = spools.next_piece(now).expect("the one");
    spools.sent(first, 50, now);
    let second = spools.next_piece(now).expect("the other");
    assert_ne!(first.run, second.run);
}

proptest! {
    #[test]
    fn the_window_holds_and_runs_take_turns(lens in prop::collection::vec(1u64..3_000_000, 1..6), acks_every in 1usize..8) {
        let (mut spools, now) = of(&lens);
        let mut got = vec![0u64; lens.len()];
        let mut turns: Vec<RunId> = Vec::new();
        for round in 0..100_000usize {
            let Some(piece) = spools.next_piece(now) else {
                for (n, bytes) in got.iter().enumerate() {
                    spools.acked(&ack(n as u128 + 1, *bytes), now);
                }
                if spools.next_piece(now).is_none() { break; }
                continue;
            };
            let n = (0..lens.len()).find(|n| id(*n as u128 + 1) == piece.run).unwrap();
            prop_assert_eq!(piece.offset, got[n]);
            prop_assert!(piece.most <= SPOOL_CHUNK_BYTES);
            let bytes = (lens[n] - got[n]).min(piece.most as u64);
            spools.sent(piece, bytes as usize, now);
            got[n] += bytes;
            let under_way: u64 = spools.runs.values().map(|run| run.sent - run.acked).sum();
            prop_assert!(under_way <= SPOOL_WINDOW_BYTES as u64);
            turns.push(piece.run);
            if round % acks_every == 0 {
                spools.acked(&ack(n as u128 + 1, got[n]), now);
                spools.acked(&ack(n as u128 + 1, got[n] / 2), now);
            }
        }
        prop_assert_eq!(&got, &lens);
        if lens.len() > 1 && lens.iter().all(|len| *len > 3 * SPOOL_CHUNK_BYTES as u64) {
            prop_assert!(turns.windows(2).take(4).all(|pair| pair[0] != pair[1]), "one run twice in a row: {:?}", &turns[..4]);
        }
    }
}
