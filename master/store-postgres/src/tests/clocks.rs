//! A database whose clock is not this host's.

use super::fleet::join;
use super::*;
use aot_store::{Store as _, WallClock};

/// A database that says a time of its own: later by what is in this table.
const OWN_CLOCK: &str = "CREATE TABLE skew (amount interval NOT NULL); INSERT INTO skew VALUES ('0'); \
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE \
    AS 'SELECT pg_catalog.clock_timestamp() + amount FROM skew'";

fn put_on(server: &Server, database: &str, amount: &str) {
    server.ask(database, &format!("UPDATE skew SET amount = '{amount}'"));
}

/// Another master, which has the database's time: it writes that down whenever the first one does.
const OTHER: &str = "INSERT INTO masters (id, incarnation, beat, version) VALUES ('other', 1, 1, ''); \
    CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        UPDATE masters SET wall_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint WHERE id = 'other'; \
        RETURN NULL; \
    END $$; \
    CREATE TRIGGER follow AFTER UPDATE ON masters FOR EACH ROW WHEN (NEW.id <> 'other') EXECUTE FUNCTION follow()";

#[tokio::test]
async fn a_master_whose_clock_is_far_off_does_nothing_and_beats_no_more_until_it_is_right() {
    let Some(server) = server("clocks that differ") else {
        return;
    };
    let database = server.database();
    server.ask(&database, OWN_CLOCK);
    let path = format!("ALTER DATABASE {database} SET search_path = public, pg_catalog");
    server.ask(&database, &path);
    let a = join(Master::of(&server.url(&database))).await;
    server.ask(&database, OTHER);
    let web = a.has("web").await;
    let beats = || server.ask(&database, "SELECT beat FROM masters WHERE id <> 'other'");
    for amount in ["1 hour", "-1 hour"] {
        put_on(&server, &database, amount);
        // Also one that is off by as much from now on: it is the time that counts, not that it was put on.
        let lost = tokio::time::timeout(LIMIT, async {
            let mut last = beats();
            loop {
                web.hold.until_not_good().await;
                tokio::time::sleep(QUICK.beat * 4).await;
                if last == beats() && !web.hold.is_good() {
                    return;
                }
                last = beats();
            }
        });
        lost.await.expect("it gives up what it has to do");
        assert!(!a.fleet.standing().is_good() && !web.hold.is_lost());
        assert!(a.take("db").await.is_none(), "it takes nothing");
        let clock = a.store.clock().expect("it was compared");
        assert_eq!(clock.wall, WallClock::FarOff, "{clock:?}");
        let off_by = if amount.starts_with('-') {
            3_600_000
        } else {
            -3_600_000
        };
        assert!(clock.ahead_ms.abs_diff(off_by) < 60_000, "{clock:?}");
        put_on(&server, &database, "1500 ms");
        let good = tokio::time::timeout(LIMIT, web.hold.until_good()).await;
        good.expect("in time").expect("it is its own");
        let clock = a.store.clock().expect("it was compared");
        assert_eq!(clock.wall, WallClock::Off, "{clock:?}");
    }
    a.write(&web, 1).await.expect("commits");
    a.close().await;
}

/// Both masters continue for as long as they beat many times with the database's clock put on like this.
async fn go_on(server: &Server, database: &str, holds: &[&Hold]) {
    let beats = || {
        let all = server.ask(database, "SELECT beat FROM masters ORDER BY id");
        let all = all.lines().map(|beat| beat.parse().expect("a number"));
        all.collect::<Vec<i64>>()
    };
    let went_on = tokio::time::timeout(LIMIT, async {
        let first = beats();
        let many = |now: &[i64]| now.iter().zip(&first).all(|(now, then)| now - then > 10);
        while !many(&beats()) {
            tokio::time::sleep(QUICK.beat).await;
        }
    });
    went_on.await.expect("all beat on");
    for hold in holds {
        let good = tokio::time::timeout(LIMIT, hold.until_good()).await;
        good.expect("in time").expect("it is its own");
    }
}

#[tokio::test]
async fn a_database_whose_clock_is_far_off_those_of_its_masters_stops_none_of_them() {
    let Some(server) = server("a clock that is off") else {
        return;
    };
    let database = server.database();
    server.ask(&database, OWN_CLOCK);
    let path = format!("ALTER DATABASE {database} SET search_path = public, pg_catalog");
    server.ask(&database, &path);
    // Off by as much from the start on, of one master alone, and put on while two run.
    put_on(&server, &database, "-1 hour");
    let a = join(Master::of(&server.url(&database))).await;
    let web = a.has("web").await;
    go_on(&server, &database, &[&web.hold]).await;
    let b = join(Master::of(&server.url(&database))).await;
    let db = b.has("db").await;
    for amount in ["-1 hour", "0", "1 hour", "13 s"] {
        put_on(&server, &database, amount);
        go_on(&server, &database, &[&web.hold, &db.hold]).await;
        a.write(&web, 1).await.expect("commits");
    }
    assert!(!web.hold.is_lost() && !db.hold.is_lost());
    a.close().await;
    b.close().await;
}
