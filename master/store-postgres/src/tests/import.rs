//! A folder's records in a fleet's database: all of them or none of a cluster, each try continuing where the last one ended.

use std::path::Path;

use aot_host::chain::Chain;
use aot_model::run::Run;
use aot_model::spec::ProviderKind;
use aot_model::task::{Exec, Task};
use aot_proto::ids::RunId;
use aot_store::blobs::{BlobFolder, BlobKey, Blobs};
use aot_store::contract::samples::{facts_of, instance, run};
use aot_store::sqlite::export::{SqliteExport, put_files};
use aot_store::sqlite::{Sqlite, mark_moved};
use prost::bytes::Bytes;

use super::fleet::{jobs_of, join, name};
use super::*;
use crate::{FoundDatabase, ImportedCluster};

/// A master with a folder of its own, which has stopped.
struct Folder(tempfile::TempDir);

fn short(number: u64) -> (RunId, Bytes) {
    (
        RunId::from_parts(number, 0),
        Bytes::from(format!("run {number}")),
    )
}

/// All that there can be on record of a cluster of this name, with ids of this and the next three numbers.
fn records(cluster_name: &str, first: u64) -> Changes {
    let of_cluster = |mut run: Run| {
        run.at.cluster = name(cluster_name);
        run
    };
    let mut cluster = cluster();
    cluster.spec.name = name(cluster_name);
    let mut instances = vec![instance("a"), instance("b")];
    for (key, _) in &mut instances {
        key.cluster = name(cluster_name);
    }
    let mut jobs = vec![job(first, false), job(first + 1, true)];
    for job in &mut jobs {
        job.cluster = name(cluster_name);
    }
    Changes {
        clusters: vec![cluster],
        facts: facts_of(&instances),
        instances,
        jobs,
        targets: [targets(first, 3), targets(first + 1, 2)].concat(),
        tasks: vec![(id(first), Arc::new(Task::Command(Exec::default())))],
        runs: vec![
            of_cluster(run(first, first, false)),
            of_cluster(run(first + 1, first + 1, true)),
            of_cluster(run(first + 2, first + 1, true)),
        ],
        ..Changes::default()
    }
}

impl Folder {
    /// With these clusters; each has a short output in its records, and a long one beside them.
    async fn of(clusters: &[(&str, u64)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let open = Sqlite.open(dir.path()).await.expect("opens");
        for (name, first) in clusters {
            let committed =
                open.store
                    .commit(&open.hold, records(name, *first), vec![short(first + 1)]);
            committed.await.expect("commits");
            let spools = dir.path().join("spools");
            std::fs::create_dir_all(&spools).expect("makes");
            let run = RunId::from_parts(first + 2, 0).to_string();
            std::fs::write(spools.join(run), vec![7; 100_000]).expect("writes");
        }
        open.store.close(&open.hold).await;
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn export(&self) -> Arc<SqliteExport> {
        Arc::new(SqliteExport::open(self.path()).expect("opens"))
    }

    async fn import(&self, to: &Postgres) -> Result<Vec<ImportedCluster>, crate::Error> {
        let plan = to.plan_import(self.export()).await?;
        let mut done = Vec::new();
        to.import(&plan, |cluster| done.push(cluster)).await?;
        Ok(done)
    }
}

fn found(done: &[ImportedCluster]) -> Vec<(&str, u64, bool)> {
    done.iter()
        .map(|it| (it.name.as_str(), it.rows, it.was_there))
        .collect()
}

/// One cluster, two instances with facts, two jobs with five targets and a task, three runs with an output.
const ROWS: u64 = 1 + 2 + 2 + 2 + 5 + 1 + 3 + 1;

#[tokio::test]
async fn all_of_a_folder_is_served_by_a_fleet_as_it_was_there() {
    let Some(server) = server("the import of a folder") else {
        return;
    };
    let url = server.url(&server.database());
    let folder = Folder::of(&[("c", 1), ("web", 11)]).await;
    let place = tempfile::tempdir().expect("a folder");
    let blobs: Arc<dyn Blobs> = Arc::new(BlobFolder::new(place.path()));
    let files = folder.export().files().expect("reads");
    let put = put_files(&files, &blobs).await.expect("puts");
    assert_eq!((put.files, put.bytes), (2, 200_000));
    let done = folder.import(&quick(&url)).await.expect("imports");
    assert_eq!(found(&done), [("c", ROWS, false), ("web", ROWS, false)]);
    let sqlite = Sqlite.open(folder.path()).await.expect("opens");
    let member = join(Master::of(&url)).await;
    for (number, cluster) in ["c", "web"].into_iter().enumerate() {
        let first = 1 + 10 * u64::try_from(number).expect("fits");
        let taken = member.has(cluster).await;
        assert!(!taken.is_taken_over);
        let of = |all: &Loaded| {
            let clusters = all
                .clusters
                .iter()
                .filter(|it| it.spec.name == name(cluster));
            let jobs = all.jobs.iter().filter(|it| it.cluster == name(cluster));
            let runs = all.runs.iter().filter(|it| it.at.cluster == name(cluster));
            (
                clusters.cloned().collect::<Vec<_>>(),
                jobs.cloned().collect::<Vec<_>>(),
                runs.cloned().collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&taken.loaded), of(&sqlite.loaded));
        assert_eq!(jobs_of(&taken), [id(first)]);
        for number in [first, first + 1] {
            let here = member.store.job(id(number)).await.expect("reads");
            assert_eq!(here, sqlite.store.job(id(number)).await.expect("reads"));
            let here = member.store.runs_of(id(number)).await.expect("reads");
            let there = sqlite.store.runs_of(id(number)).await.expect("reads");
            assert_eq!(here, there);
        }
        let (run, bytes) = short(first + 1);
        let spool = member.store.small_spool(run).await.expect("reads");
        assert_eq!(spool, Some(bytes.to_vec()));
        let key = BlobKey::output(&name(cluster), RunId::from_parts(first + 2, 0));
        let long = blobs.find(&key).await.expect("asks").expect("is there");
        assert_eq!(long.bytes, 100_000);
        let kept = member.store.commit(&taken.hold, one(first + 5), Vec::new());
        kept.await.expect("it goes on from there");
    }
    member.close().await;
}

#[tokio::test]
async fn an_import_that_was_interrupted_goes_on_where_it_was() {
    let Some(server) = server("an import that is interrupted") else {
        return;
    };
    let database = server.database();
    let to = quick(&server.url(&database));
    let folder = Folder::of(&[("c", 1), ("db", 11), ("web", 21)]).await;
    to.plan_import(folder.export()).await.expect("makes tables");
    server.ask(
        &database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
            $$BEGIN RAISE 'no more'; END$$; \
        CREATE TRIGGER refuse BEFORE INSERT ON spools FOR EACH ROW \
            WHEN (NEW.bytes = 'run 12') EXECUTE FUNCTION refuse()",
    );
    let error = folder.import(&to).await.expect_err("is interrupted");
    assert!(Chain(&error).to_string().contains("no more"), "{error}");
    let clusters = || server.ask(&database, "SELECT string_agg(cluster, ',') FROM clusters");
    let owners = || server.ask(&database, "SELECT string_agg(cluster, ',') FROM owners");
    assert_eq!((clusters(), owners()), ("c".to_owned(), "c".to_owned()));
    server.ask(&database, "DROP TRIGGER refuse ON spools");
    // A master works with what is there meanwhile: that is no reason to bring it again, or to refuse the rest.
    let member = join(Master::of(&server.url(&database))).await;
    let taken = member.has("c").await;
    member.write(&taken, 99).await.expect("commits");
    let done = folder.import(&to).await.expect("goes on");
    let wanted = [("c", 0, true), ("db", ROWS, false), ("web", ROWS, false)];
    assert_eq!(found(&done), wanted);
    member
        .write(&taken, 100)
        .await
        .expect("its hold is as it was");
    let again = folder.import(&to).await.expect("has nothing to do");
    assert!(again.iter().all(|cluster| cluster.was_there));
    member.close().await;
    // What was changed in the folder since is not what was brought.
    let sqlite = Sqlite.open(folder.path()).await.expect("opens");
    let mut more = one(50);
    more.jobs[0].cluster = name("db");
    let written = sqlite.store.commit(&sqlite.hold, more, Vec::new()).await;
    written.expect("commits");
    sqlite.store.close(&sqlite.hold).await;
    let refused = folder.import(&to).await.expect_err("differs");
    let text = refused.to_string();
    assert!(text.contains("(db)"), "{text}");
}

/// By a trigger, as an operator may have one: nobody else can come in between.
#[tokio::test]
async fn a_row_that_is_not_what_was_written_is_seen_and_nothing_of_its_cluster_stays() {
    let Some(server) = server("rows that differ") else {
        return;
    };
    for (table, change) in [
        ("targets", "NEW.record := NEW.record || ' '"),
        ("jobs", "NEW.ended_ms := coalesce(NEW.ended_ms, 0) + 1"),
        ("runs", "NEW.open := NOT NEW.open"),
        ("spools", "NEW.bytes := 'other'"),
        ("facts", "IF NEW.name = 'b' THEN RETURN NULL; END IF"),
    ] {
        let database = server.database();
        let to = quick(&server.url(&database));
        let folder = Folder::of(&[("c", 1)]).await;
        to.plan_import(folder.export()).await.expect("makes tables");
        server.ask(
            &database,
            &format!(
                "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS \
                    $$BEGIN {change}; RETURN NEW; END$$; \
                CREATE TRIGGER spoil BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION spoil()"
            ),
        );
        let error = folder.import(&to).await.expect_err(table);
        let is_seen = matches!(&error, crate::Error::Differs { table: it, .. } if *it == table);
        assert!(is_seen, "{table}: {error}");
        let left = "SELECT (SELECT count(*) FROM clusters) + (SELECT count(*) FROM owners) \
            + (SELECT count(*) FROM jobs) + (SELECT count(*) FROM imports)";
        assert_eq!(server.ask(&database, left), "0", "{table}");
    }
}

#[tokio::test]
async fn what_cannot_be_imported_is_refused_by_name_before_anything_is_written() {
    let Some(server) = server("imports that are refused") else {
        return;
    };
    let said = |error: crate::Error| Chain(&error).to_string();
    // A name that is taken, also by a cluster of which nothing is on record yet.
    let database = server.database();
    let to = quick(&server.url(&database));
    let member = join(Master::of(&server.url(&database))).await;
    member.has("web").await;
    let folder = Folder::of(&[("c", 1), ("web", 11)]).await;
    let text = said(folder.import(&to).await.expect_err("is refused"));
    assert!(text.contains("(web)"), "{text}");
    assert_eq!(server.ask(&database, "SELECT count(*) FROM clusters"), "0");
    member.close().await;
    // Clones of that host.
    let local = Folder::of(&[]).await;
    let sqlite = Sqlite.open(local.path()).await.expect("opens");
    let mut changes = records("c", 1);
    changes.clusters[0].spec.provider = ProviderKind::Local;
    let written = sqlite.store.commit(&sqlite.hold, changes, Vec::new()).await;
    written.expect("commits");
    sqlite.store.close(&sqlite.hold).await;
    let empty = quick(&server.url(&server.database()));
    let text = said(local.import(&empty).await.expect_err("is refused"));
    assert!(
        text.contains("(c)") && text.contains("clean them up"),
        "{text}"
    );
    // A database that one master has for itself.
    let url = server.url(&server.database());
    let alone = Master::alone(&url);
    let open = alone.open().await;
    open.close().await;
    let folder = Folder::of(&[("c", 1)]).await;
    let text = said(folder.import(&quick(&url)).await.expect_err("is refused"));
    assert!(text.contains("AOT_FLEET_KEY"), "{text}");
    // A folder that was moved, by whoever names it: for an import, for a master alone, for one of a fleet.
    mark_moved(folder.path(), "postgres://db/aot").expect("marks");
    let errors = [
        SqliteExport::open(folder.path())
            .err()
            .map(|it| it.to_string()),
        Sqlite
            .open(folder.path())
            .await
            .err()
            .map(|it| it.to_string()),
        quick(&url)
            .open_here(folder.path())
            .await
            .err()
            .map(|it| it.to_string()),
    ];
    for error in errors {
        let text = error.expect("is refused");
        assert!(text.contains("were moved to postgres://db/aot"), "{text}");
    }
}

/// What is left of a cluster that is gone stays whose it was, and a later one of that name brings its own.
#[tokio::test]
async fn history_is_no_hindrance_and_no_hold() {
    let Some(server) = server("the import of history") else {
        return;
    };
    let database = server.database();
    let to = quick(&server.url(&database));
    let gone = Folder::of(&[]).await;
    let sqlite = Sqlite.open(gone.path()).await.expect("opens");
    let changes = Changes {
        jobs: vec![job(40, true)],
        targets: targets(40, 2),
        ..Changes::default()
    };
    let written = sqlite.store.commit(&sqlite.hold, changes, Vec::new()).await;
    written.expect("commits");
    sqlite.store.close(&sqlite.hold).await;
    let done = gone.import(&to).await.expect("imports");
    assert_eq!(found(&done), [("c", 3, false)]);
    assert_eq!(server.ask(&database, "SELECT count(*) FROM owners"), "0");
    let folder = Folder::of(&[("c", 1)]).await;
    let done = folder.import(&to).await.expect("imports");
    assert_eq!(found(&done), [("c", ROWS, false)]);
    assert_eq!(server.ask(&database, "SELECT count(*) FROM jobs"), "3");
}

#[tokio::test]
async fn what_a_database_has_is_found_without_a_change() {
    let Some(server) = server("what a database has") else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    let to = quick(&url);
    assert_eq!(to.found().await.expect("looks"), FoundDatabase::Empty);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(server.ask(&database, tables), "0");
    let shared: &dyn aot_store::SharedSecrets = &to;
    for _ in 0..2 {
        let kept = shared.keep(b"sealed".to_vec()).await.expect("keeps");
        assert_eq!(kept, b"sealed");
        assert_eq!(to.found().await.expect("looks"), FoundDatabase::Keys);
    }
    let url = server.url(&server.database());
    let alone = Master::alone(&url);
    alone.open().await.close().await;
    let error = quick(&url).found().await.expect_err("its keys are there");
    let text = error.to_string();
    assert!(text.contains("AOT_FLEET_KEY"), "{text}");
}
