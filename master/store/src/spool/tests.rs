use super::*;
use aot_proto::frame;
use aot_proto::v1::{Ended, Frame, frame::Body};

impl Spools {
    /// Appends a piece and waits until it is written.
    async fn append_and_wait(
        &self,
        run: RunId,
        offset: u64,
        data: Bytes,
        end: bool,
    ) -> io::Result<Arrived> {
        self.append(run, offset, data, end, u64::MAX).await?.await
    }
}

fn spool(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        let body = Body::Stdout(Bytes::copy_from_slice(part));
        frame::encode(
            &Frame {
                unix_ms: 1,
                body: Some(body),
            },
            &mut bytes,
        );
    }
    let end = Body::Ended(Ended {
        exit_code: 7,
        ..Ended::default()
    });
    frame::encode(
        &Frame {
            unix_ms: 2,
            body: Some(end),
        },
        &mut bytes,
    );
    bytes
}

async fn all(mut reader: SpoolReader) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(more) = reader.next().await.expect("reads") {
        frames.extend(more);
    }
    frames
}

#[tokio::test]
async fn pieces_that_come_twice_or_overlap_leave_one_exact_copy() {
    let dir = tempfile::tempdir().expect("a folder");
    let spools = Spools::open(dir.path()).expect("opens");
    let run = RunId::from_parts(1, 1);
    let bytes = Bytes::from(spool(&[b"one", b"two", b"three"]));
    let follower = tokio::spawn(all(spools.read(run, None, true)));
    for (from, to) in [(0, 10), (0, 10), (5, 20), (20, 21)] {
        spools
            .append_and_wait(run, from, bytes.slice(from as usize..to), false)
            .await
            .expect("appends");
    }
    assert_eq!(spools.have(run), 21);
    assert!(
        spools
            .append_and_wait(run, 30, bytes.slice(30..), false)
            .await
            .is_err(),
        "a gap was taken"
    );
    spools
        .append_and_wait(run, 21, bytes.slice(21..), true)
        .await
        .expect("appends");
    assert_eq!(
        std::fs::read(dir.path().join(run.to_string())).expect("reads"),
        bytes
    );
    assert_eq!(follower.await.expect("ends").len(), 4);
    assert_eq!(spools.end_of(run).expect("whole").exit_code, 7);
}

#[tokio::test]
async fn what_is_past_a_cap_is_not_kept_and_ends_the_copy() {
    let dir = tempfile::tempdir().expect("a folder");
    let spools = Spools::open(dir.path()).expect("opens");
    let run = RunId::from_parts(1, 1);
    let bytes = Bytes::from(spool(&[&[b'x'; 50_000][..]; 8]));
    let (cap, piece) = (150_000, bytes.len() / 8);
    let mut kept = 0;
    for at in (0..bytes.len()).step_by(piece) {
        let end = bytes.len().min(at + piece);
        let data = bytes.slice(at..end);
        let taken = spools.append(run, at as u64, data, false, cap).await;
        match taken.expect("a place").await {
            Ok(_) => kept = end,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}"),
        }
    }
    assert!((150_000..250_000).contains(&kept), "{kept} bytes were kept");
    assert_eq!(spools.size(run), kept as u64);
    let more = spools.append(run, kept as u64, bytes.slice(..10), false, u64::MAX);
    let more = more.await.expect("a place").await;
    assert!(more.is_err(), "nothing more is taken, whatever the cap");
    let other = RunId::from_parts(2, 1);
    let text = spools.append(other, 0, Bytes::from_static(b"no frames"), false, cap);
    let error = text.await.expect("a place").await.expect_err("is refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn after_a_power_cut_what_was_not_whole_is_asked_for_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let [open, ended] = [1, 2].map(|n| RunId::from_parts(n, 1));
    let bytes = Bytes::from(spool(&[b"one", b"two"]));
    for (boot, kept) in [("b1", 5), ("b1", 5), ("b2", 0)] {
        let spools = Spools::open(dir.path()).expect("opens");
        spools
            .distrust_other_boots(boot, [open].into_iter())
            .expect("looks");
        assert_eq!(spools.have(open), kept * u64::from(spools.have(ended) > 0));
        for (run, len) in [(open, 5), (ended, bytes.len())] {
            let (part, end) = (bytes.slice(..len), len == bytes.len());
            spools
                .append_and_wait(run, 0, part.slice(..1), false)
                .await
                .expect("appends");
            spools
                .append_and_wait(run, 1, part.slice(1..), end)
                .await
                .expect("appends");
        }
    }
    let spools = Spools::open(dir.path()).expect("opens");
    assert_eq!(spools.have(ended), bytes.len() as u64, "it was synced");
}

#[tokio::test]
async fn a_long_spool_that_comes_in_one_piece_becomes_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let spools = Spools::open(dir.path()).expect("opens");
    let run = RunId::from_parts(1, 1);
    let bytes = Bytes::from(spool(&[&[b'x'; 40_000], &[b'y'; 40_000]]));
    let arrived = spools.append_and_wait(run, 0, bytes.clone(), true).await;
    assert!(matches!(arrived, Ok(Arrived::Part(progress)) if progress.ended));
    assert_eq!(spools.size(run), bytes.len() as u64);
    assert_eq!(spools.end_of(run).expect("whole").exit_code, 7);
    assert_eq!(spools.synced_end_of(run), spools.end_of(run));
}

#[tokio::test]
async fn asking_for_runs_that_nobody_knows_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let spools = Spools::open(dir.path()).expect("opens");
    for n in 0..1000 {
        assert_eq!(spools.have(RunId::from_parts(n, 1)), 0);
    }
    assert!(spools.feeds.lock().expect("unlocked").is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 0);
}

#[tokio::test]
async fn a_small_spool_whose_end_was_not_taken_is_given_once_more_by_its_end_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let spools = Spools::open(dir.path()).expect("opens");
    let (run, bytes) = (RunId::from_parts(1, 1), Bytes::from(spool(&[b"x"])));
    for (offset, data) in [(0, bytes.clone()), (bytes.len() as u64, Bytes::new())] {
        assert_eq!(spools.have(run), offset);
        let arrived = spools.append_and_wait(run, offset, data, true).await;
        assert!(matches!(arrived, Ok(Arrived::Whole(whole)) if whole == bytes));
    }
    let past = spools.append_and_wait(run, bytes.len() as u64 + 1, Bytes::new(), true);
    assert!(past.await.is_err(), "a gap was taken");
}

#[tokio::test]
async fn a_small_spool_never_becomes_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let spools = Spools::open(dir.path()).expect("opens");
    let run = RunId::from_parts(1, 1);
    let follower = tokio::spawn(all(spools.read(run, None, true)));
    let bytes = Bytes::from(spool(&[b"x"]));
    let arrived = spools
        .append_and_wait(run, 0, bytes.clone(), true)
        .await
        .expect("appends");
    assert!(matches!(arrived, Arrived::Whole(whole) if whole == bytes));
    // As an agent says it in its next session, when the end did not reach the store in the last one.
    let again = [(0, bytes.clone()), (bytes.len() as u64, Bytes::new())];
    for (offset, data) in again {
        let arrived = spools.append_and_wait(run, offset, data, true).await;
        assert!(matches!(arrived, Ok(Arrived::Whole(whole)) if whole == bytes));
    }
    assert!(!dir.path().join(run.to_string()).exists());
    assert_eq!(follower.await.expect("ends").len(), 2);
    assert_eq!(
        all(spools.read(run, Some(bytes.to_vec()), false))
            .await
            .len(),
        2
    );
}

#[tokio::test]
async fn the_last_line_of_a_run_is_known_while_it_grows() {
    let dir = tempfile::tempdir().expect("a folder");
    let spools = Spools::open(dir.path()).expect("opens");
    let run = RunId::from_parts(1, 1);
    assert_eq!(spools.last_line(run), None);
    let bytes = Bytes::from(spool(&[b"one\n", b"two\nthr", b"ee\n"]));
    let cut = bytes.len() - 12; // within a frame
    let append = spools.append_and_wait(run, 0, bytes.slice(..cut), false);
    append.await.expect("appends");
    assert_eq!(spools.last_line(run).as_deref(), Some("thr"));
    let append = spools.append_and_wait(run, cut as u64, bytes.slice(cut..), true);
    append.await.expect("appends");
    assert_eq!(spools.last_line(run).as_deref(), Some("three"));
    // A master that did not see it come reads it from its beginning.
    let again = Spools::open(dir.path()).expect("opens");
    assert_eq!(again.last_line(run).as_deref(), Some("three"));
}
