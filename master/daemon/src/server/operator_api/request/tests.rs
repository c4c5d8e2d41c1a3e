use super::*;

const NOW: UnixMs = 1_800_000_000_000;

fn with(value: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let value = value.parse().expect("stands in a header");
    metadata.append(headers::REQUEST, value);
    metadata
}

#[test]
fn an_id_that_was_just_made_is_taken_and_nothing_else() {
    assert_eq!(id(&MetadataMap::new(), NOW).expect("none"), None);
    let made = |ms| JobId::from_parts(ms, 7);
    for ms in [NOW, NOW - AROUND_MS, NOW + AROUND_MS] {
        let given = made(ms).to_string();
        assert_eq!(id(&with(&given), NOW).expect(&given), Some(made(ms)));
    }
    let good = made(NOW).to_string();
    for (given, why) in [
        (made(NOW - AROUND_MS - 1).to_string(), "10 minutes"),
        (made(NOW + AROUND_MS + 1).to_string(), "10 minutes"),
        (good.to_lowercase(), "not written as"),
        (good.replace("job-", "run-"), "start with job-"),
        (good.replace("job-", ""), "start with job-"),
        (format!("{good}0"), "not a ULID"),
        ("job-".to_owned(), "not a ULID"),
        (String::new(), "start with job-"),
        (
            format!("job-{}", "0".repeat(headers::MAX_BYTES)),
            "too long",
        ),
    ] {
        let refused = id(&with(&given), NOW).expect_err(&given);
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(why), "{given}: {refused:?}");
    }
    let mut twice = with(&good);
    twice.append(headers::REQUEST, good.parse().expect("stands there"));
    assert!(id(&twice, NOW).is_err());
}

#[test]
fn another_job_is_never_taken_for_the_one_that_is_asked_for() {
    let web: ClusterName = "web".parse().expect("a name");
    let db: ClusterName = "db".parse().expect("a name");
    let task = |word: &str| Task::CopyOut(vec![word.to_owned()]);
    let job = Job {
        task: Some(task("/a").into()),
        ..Job::new(
            JobId::from_parts(NOW, 1),
            JobKind::Exec,
            web.clone(),
            "exec all".into(),
            "uid 0 at a".into(),
            NOW,
        )
    };
    let (own, other) = (task("/a"), task("/b"));
    let wanted = Wanted {
        kind: JobKind::Exec,
        cluster: &web,
        what: "exec all",
        operator: "uid 0",
        task: Some(&own),
    };
    check_same(&job, &wanted).expect("is the same");
    let with_other_kind = Wanted {
        kind: JobKind::Copy,
        ..wanted
    };
    let others = [
        with_other_kind,
        Wanted {
            cluster: &db,
            ..wanted
        },
        Wanted {
            what: "exec web1",
            ..wanted
        },
        Wanted {
            operator: "uid 1",
            ..wanted
        },
        Wanted {
            operator: "uid 0 at b",
            ..wanted
        },
        Wanted {
            task: Some(&other),
            ..wanted
        },
        Wanted {
            task: None,
            ..wanted
        },
    ];
    for wanted in others {
        let refused = check_same(&job, &wanted).expect_err("another");
        assert_eq!(refused.code(), tonic::Code::AlreadyExists);
        assert!(refused.message().contains(&job.id.to_string()));
    }
}

#[test]
fn an_operator_is_the_same_whether_or_not_its_master_passed_the_request_on() {
    for (one, other, is_same) in [
        ("uid 0", "uid 0", true),
        ("uid 0", "uid 0 at a", true),
        ("uid 0 at a", "uid 0", true),
        ("uid 0 at a", "uid 0 at a", true),
        ("uid 0 at a", "uid 0 at b", false),
        ("uid 0", "uid 1 at a", false),
        ("uid 0", "uid 01", false),
    ] {
        assert_eq!(is_same_operator(one, other), is_same, "{one}, {other}");
    }
}
