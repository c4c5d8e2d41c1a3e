//! T2: the server is killed under commits, again and again.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Kills in one test; `AOT_TEST_ROUNDS` asks for more.
const ROUNDS: u64 = 6;

/// FencedWriters at once, as a batch of the loop and a sweep of the janitor may meet.
const WRITERS: u64 = 2;

pub(super) fn rounds(usual: u64) -> u64 {
    let given = std::env::var("AOT_TEST_ROUNDS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_commits_loses_and_doubles_nothing() {
    let server = match Server::start() {
        Ok(server) => Arc::new(server),
        Err(why) => return why.skip("a server that is killed"),
    };
    let mut state = seed();
    let database = server.database();
    let master = Master::of(&server.url(&database));
    let open = Arc::new(master.open().await);
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (open, acknowledged, stop) = (open.clone(), acknowledged.clone(), stop.clone());
        writers.spawn(async move {
            let mut written = Vec::new();
            for number in (0..).map(|count| 1 + writer + count * WRITERS) {
                if stop.load(Ordering::SeqCst) > 0 {
                    break;
                }
                open.write(number).await.expect("commits, however late");
                acknowledged.fetch_add(1, Ordering::SeqCst);
                written.push(number);
            }
            written
        });
    }
    for _ in 0..rounds(ROUNDS) {
        let before = acknowledged.load(Ordering::SeqCst);
        until(|| acknowledged.load(Ordering::SeqCst) >= before + 20).await;
        tokio::time::sleep(Duration::from_micros(dice(&mut state, 30_000))).await;
        let killed = server.clone();
        let restarted = tokio::task::spawn_blocking(move || {
            killed.kill();
            killed.run();
        });
        restarted.await.expect("it comes back");
    }
    stop.store(1, Ordering::SeqCst);
    let mut written = Vec::new();
    while let Some(numbers) = writers.join_next().await {
        written.extend(numbers.expect("a writer ends"));
    }
    written.sort();
    let found = open.jobs().await;
    let expected: Vec<JobId> = written.iter().copied().map(id).collect();
    assert_eq!(found, expected, "what was acknowledged, and nothing else");
    assert_eq!(
        counted(&server, &database),
        open.raised(written.len() as u64),
        "each once"
    );
    let asked = open.store.writers.counts().0;
    println!("{} commits, {asked} asked about", written.len());
    assert!(
        asked >= 1,
        "a kill under commits leaves one without an answer"
    );
    open.close().await;
}

/// Stopped and started by its administrator: whoever writes waits, and continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_a_while_is_waited_for() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("a server that is away"),
    };
    let database = server.database();
    let master = Master::of(&server.url(&database));
    let open = master.open().await;
    open.write(1).await.expect("commits");
    server.stop();
    let waits = tokio::time::timeout(QUICK.dead * 2, open.write(2)).await;
    assert!(waits.is_err(), "it waits for as long as nobody answers");
    let begun = std::time::Instant::now();
    let unread = open.store.job(id(1)).await;
    assert!(
        unread.is_err() && begun.elapsed() < LIMIT / 2,
        "a read gives up"
    );
    server.run();
    open.write(3).await.expect("commits");
    let found = open.jobs().await;
    assert!(
        found == [id(1), id(3)] || found == [id(1), id(2), id(3)],
        "{found:?}"
    );
    assert_eq!(counted(&server, &database), open.raised(found.len() as u64));
    open.close().await;
}

/// A failover: the one that takes writes is gone, and the one that had all of it takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_takes_over_has_all_that_was_acknowledged() {
    let servers = Server::start().and_then(|first| {
        let standby = first.standby()?;
        Ok((first, standby))
    });
    let (first, standby) = match servers {
        Ok(servers) => servers,
        Err(why) => return why.skip("a failover"),
    };
    until(|| first.has_standby()).await;
    let database = first.database();
    let url = format!(
        "postgres://aot@127.0.0.1:{},127.0.0.1:{}/{database}",
        first.port(),
        standby.port()
    );
    let master = Master::of(&url);
    let open = Arc::new(master.open().await);
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut writer = tokio::task::JoinSet::new();
    {
        let (open, acknowledged, stop) = (open.clone(), acknowledged.clone(), stop.clone());
        writer.spawn(async move {
            for number in (1..).take_while(|_| stop.load(Ordering::SeqCst) == 0) {
                open.write(number).await.expect("commits, however late");
                acknowledged.store(number, Ordering::SeqCst);
            }
        });
    }
    until(|| acknowledged.load(Ordering::SeqCst) >= 50).await;
    let promoted = tokio::task::spawn_blocking(move || {
        first.kill();
        standby.promote();
        standby
    });
    let standby = promoted.await.expect("it takes over");
    let before = acknowledged.load(Ordering::SeqCst);
    until(|| acknowledged.load(Ordering::SeqCst) >= before + 50).await;
    stop.store(1, Ordering::SeqCst);
    let ended = writer.join_next().await.expect("there is one");
    ended.expect("it ends");
    let written = acknowledged.load(Ordering::SeqCst);
    assert_eq!(open.jobs().await, (1..=written).map(id).collect::<Vec<_>>());
    assert_eq!(
        counted(&standby, &database),
        open.raised(written),
        "each once"
    );
    open.close().await;
}
