//! What selections mean, and what is said of those that mean nobody.

use super::*;
use aot_model::samples;
use aot_proto::fault::What;

/// An empty text stands for one that was not given.
fn selection<'a>(target: &'a str, exclude: &'a str, limit: u32) -> Selection<'a> {
    let given = |text: &'a str| Some(text).filter(|text| !text.is_empty());
    Selection {
        target: given(target),
        exclude: given(exclude),
        limit,
    }
}

fn names(cluster: &Cluster, selection: Selection<'_>) -> String {
    let names = matching(cluster, selection).expect("a good selection");
    let names: Vec<&str> = names.iter().map(InstanceName::as_str).collect();
    names.join(" ")
}

#[test]
fn names_are_ordered_as_people_count() {
    let mut names = ["web10", "web2", "db", "web1"];
    names.sort_by_key(|name| natural(name));
    assert_eq!(names, ["db", "web1", "web2", "web10"]);
}

#[test]
fn an_exclusion_comes_before_the_limit() {
    let cluster = samples::cluster();
    for (target, exclude, limit, wanted) in [
        ("", "", 0, "db1 web1 web2 web10"),
        ("*", "", 2, "db1 web1"),
        ("", "db*", 2, "web1 web2"),
        ("@front", "web2", 0, "web1 web10"),
        ("web", "", 0, "web1 web2 web10"),
        ("all", "web", 0, "db1"),
        ("name:web", "", 0, ""),
        ("web*", "@front", 0, ""),
        ("web*", "phase:planned", 9, "web1 web2"),
        ("fact:cpus=2", "", 0, "db1 web1 web2"),
        ("fact:phase=planned", "", 0, "web10"),
        ("nobody", "", 0, ""),
    ] {
        assert_eq!(
            names(&cluster, selection(target, exclude, limit)),
            wanted,
            "{target} {exclude} {limit}"
        );
    }
}

#[test]
fn an_instance_goes_before_a_pool_of_its_name() {
    let mut cluster = samples::cluster();
    let mut db = cluster.spec.pools[1].clone();
    db.name = None;
    db.members[0].name = "web".parse().expect("a name");
    cluster.spec.pools.push(db);
    assert_eq!(names(&cluster, "web".into()), "", "it is not launched yet");
    assert_eq!(names(&cluster, "pool:web".into()), "web1 web2 web10");
}

#[test]
fn what_was_meant_comes_with_the_refusal() {
    let cluster = samples::cluster();
    let hint = |target: &str| match fault::of(&none(&cluster, target.into())) {
        Some(What::Target(fault)) => fault.hint,
        other => panic!("{target}: {other:?}"),
    };
    assert_eq!(hint("wbe10"), "did you mean web10?");
    assert_eq!(hint("pool:bd"), "did you mean pool:db?");
    assert_eq!(hint("!web1"), "to leave instances out, write 'not web1'");
    assert_eq!(hint("nobody"), "");
}

#[test]
fn an_instance_that_is_gone_is_not_meant() {
    let mut cluster = samples::cluster();
    let gone = cluster
        .instances
        .get_mut(&"web10".parse().expect("a name"))
        .expect("it is there");
    gone.wanted = false;
    gone.phase = Phase::Gone;
    assert_eq!(names(&cluster, "web*".into()), "web1 web2");
}

#[test]
fn a_selection_of_nobody_names_what_was_left_out() {
    let cluster = samples::cluster();
    let told: Vec<String> = [
        ("nobody", ""),
        ("nobody", "web*"),
        ("web*", "@front"),
        ("", "*"),
    ]
    .map(|(target, exclude)| {
        let status = none(&cluster, selection(target, exclude, 3));
        assert_eq!(status.code(), tonic::Code::NotFound);
        status.message().to_owned()
    })
    .into();
    insta::assert_snapshot!("nobody", told.join("\n"));
}

#[test]
fn a_fault_is_pointed_at() {
    let cluster = samples::cluster();
    let long = format!("{},é[", ["web1"; 60].join(","));
    let told: Vec<String> = [
        ("web1 web2", ""),
        ("*", "pool:"),
        ("web1 and @bad", ""),
        (&long, ""),
        ("tab\tweb1", ""),
    ]
    .map(|(target, exclude)| {
        let status = matching(&cluster, selection(target, exclude, 0)).expect_err(target);
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let Some(What::Target(fault)) = fault::of(&status) else {
            panic!("{status:?}");
        };
        assert_eq!(
            status.message(),
            format!("{}: {}", fault.what, fault.message)
        );
        let (start, end) = (fault.start as usize, fault.end as usize);
        let (before, rest) = fault.text.split_at(start);
        let (meant, after) = rest.split_at(end - start);
        let v1::TargetFault { hint, named_by, .. } = fault;
        format!(
            "{}\n  {before}>{meant}<{after}\n  {named_by:?}\n  {hint}",
            status.message()
        )
    })
    .into();
    insta::assert_snapshot!("faults", told.join("\n\n"));
}

#[test]
fn what_was_said_is_shown_as_it_is_typed() {
    assert_eq!(selection("", "", 0).to_string(), r#""*""#);
    assert_eq!(
        selection("web*", "web1", 3).to_string(),
        r#""web*" --exclude "web1" --limit 3"#
    );
}
