//! The files that a cluster.yml names.

use super::*;

#[test]
fn a_file_that_is_not_there_has_the_place_that_names_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("cluster.yml");
    let text = "cluster: c\nprovider: local\ninstances:\n- name: a\n  stages: [{dir: there}, {dir: ./not/./there}]\n";
    std::fs::create_dir(dir.path().join("there")).expect("a folder");
    std::fs::write(dir.path().join("there/bootstrap.sh"), "true\n").expect("writes");
    let parsed = crate::parse(text, &path).expect("a good file");
    let problems = file_problems(&parsed.spec, &path);
    let places: Vec<_> = problems
        .iter()
        .map(|found| parsed.place_of(&found.file, text, &path))
        .collect();
    assert_eq!(places, [Some((5, 32))]);
    assert_eq!(parsed.place_of(Path::new("/elsewhere"), text, &path), None);
}

#[test]
fn the_files_that_are_named_are_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("bundle");
    std::fs::create_dir(&bundle).expect("a folder");
    let text = "
cluster: c
provider: local
instances: [{name: a, cloud_config: cc.yml, stages: [{dir: bundle}, {tar: gone.tar}]}]
";
    let path = folder.path().join("cluster.yml");
    let spec = crate::parse(text, &path).expect("a good file").spec;
    let problems: Vec<String> = check_files(&spec, &path)
        .into_iter()
        .map(|problem| problem.message)
        .collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("has no bootstrap.sh"), "{problems:?}");
    assert!(
        problems[1].contains("cannot read") && problems[1].contains("gone.tar"),
        "{problems:?}"
    );
    assert!(problems[2].contains("cc.yml"), "{problems:?}");
    std::fs::write(bundle.join("bootstrap.sh"), "true\n").expect("a script");
    std::fs::write(folder.path().join("cc.yml"), "#cloud-config\n").expect("a file");
    let spec = crate::parse(
        &text.replace(", {tar: gone.tar}", ""),
        &folder.path().join("cluster.yml"),
    );
    assert_eq!(check_files(&spec.expect("a good file").spec, &path), []);
}

#[test]
fn a_cloud_config_is_judged_as_by_the_launch() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.yml");
    let text = "
cluster: c
provider: local
instances: [{name: a, cloud_config: cc}]
";
    let spec = crate::parse(text, &path).expect("a good file").spec;
    let check = |bytes: &[u8]| {
        std::fs::write(folder.path().join("cc"), bytes).expect("a file");
        check_files(&spec, &path)
    };
    for good in [
        "#cloud-config\n",
        "#cloud-config\r\npackages: [a]\r\n",
        "#cloud-config\nhostname: $instance_name\nruncmd: [echo $private_ipv4]\n",
        "#cloud-config-archive\n- type: text/x-shellscript\n",
        "#!/bin/sh\n{ not: yaml\n",
        "## template: jinja\n#cloud-config\n{% if x %}\na: 1\n{% endif %}\n",
    ] {
        assert_eq!(check(good.as_bytes()), [], "{good}");
    }
    let long = format!("#cloud-config\na: {}\n", "x".repeat(15_000));
    let far = format!("#cloud-config\na: {}\n", "x".repeat(20_000));
    for (bad, what) in [
        (&b"\xef\xbb\xbf#cloud-config\n"[..], "byte order mark"),
        (
            b"#cloud-config\na: 1\nb: \xe9t\xe9\n",
            "line 3 is not UTF-8",
        ),
        (b"\n#cloud-config\n", "must start with"),
        (b"packages: [a]\n", "must start with"),
        (b"#cloud-config\npackages: [a\nb: 1\n", "cc:3:"),
        (b"#cloud-config\na:\n\t- b\n", "cc:3:"),
        (b"#cloud-config\n- a\n", "cc:2:1: wants a mapping"),
        (b"#cloud-config\na: !Ref b\n", "cc:2:4: the tag !Ref"),
        (b"#cloud-config\na: 1\n---\nb: 1\n", "more than one"),
        (long.as_bytes(), "user-data has"),
        (far.as_bytes(), "16384"),
    ] {
        let problems = check(bad);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].message.contains(what), "{what}: {problems:?}");
    }
}

#[test]
fn what_is_missing_beside_a_link_and_lies_beside_the_file_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["real/bundle", "other"] {
        std::fs::create_dir_all(at(name)).expect("a folder");
    }
    std::fs::write(at("real/bundle/bootstrap.sh"), "true\n").expect("a script");
    let text = "{cluster: c, provider: local, instances: [{name: a, stages: [{dir: bundle}]}]}";
    std::fs::write(at("real/cluster.yml"), text).expect("a file");
    let link = at("other/cluster.yml");
    std::os::unix::fs::symlink(at("real/cluster.yml"), &link).expect("a link");
    let spec = crate::parse(text, &link).expect("a good file").spec;
    let problems = check_files(&spec, &link);
    assert!(problems[0].hint.contains("is a link"), "{problems:?}");
    assert!(problems[0].hint.contains("real/bundle"), "{problems:?}");
    std::os::unix::fs::symlink(at("real/bundle"), at("other/bundle")).expect("a link");
    assert_eq!(check_files(&spec, &link), []);
}
