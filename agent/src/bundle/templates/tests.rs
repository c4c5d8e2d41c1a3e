use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;

fn values() -> TemplateValues {
    TemplateValues {
        instance: "web1".into(),
        vars: json!({"port": 8080, "net": {"names": ["a", "b"]}, "html": "<&>", "none": null}),
        cluster: json!({
            "web1": {"ip_address": "10.0.0.1", "pool": "web"},
            "web2": {"ip_address": "10.0.0.2", "pool": "web"},
        }),
    }
}

fn one(source: &str) -> Result<String, Error> {
    let text = render(Path::new("etc/x.j2"), source, &values().context(), 10_000)?;
    Ok(String::from_utf8(text).expect("UTF-8"))
}

/// A folder with these files, and the templates among them.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }
    let names = files.iter().map(|(name, _)| PathBuf::from(name));
    let templates = names.filter(|name| name.extension().is_some_and(|it| it == "j2"));
    let templates = templates.collect();
    (dir, templates)
}

#[test]
fn templates_see_facts_cluster_vars_instance_and_pool() {
    for (source, wanted) in [
        ("{{ instance }} of {{ pool }}\n", "web1 of web\n"),
        ("{{ facts.ip_address }}:{{ vars.port }}", "10.0.0.1:8080"),
        ("{{ vars.net.names | join(',') }}", "a,b"),
        (
            "{% for name in cluster %}{{ name }}={{ cluster[name].ip_address }} {% endfor %}",
            "web1=10.0.0.1 web2=10.0.0.2 ",
        ),
        (
            "{% for name, of in cluster | items if name != instance %}{{ of.ip_address }}{% endfor %}",
            "10.0.0.2",
        ),
        ("{{ vars.html }}", "<&>"),
        ("{{ vars.net | tojson }}", r#"{"names":["a","b"]}"#),
        ("{{ vars.other | default('d') }}", "d"),
        ("$HOME ${x} # plain\n", "$HOME ${x} # plain\n"),
    ] {
        assert_eq!(one(source).expect(source), wanted, "{source}");
    }
}

#[test]
fn a_mistake_names_file_line_and_what_is_meant() {
    for (source, wanted) in [
        (
            "a\n{{ vars.prot }}\n",
            "cannot render etc/x.j2:2: undefined value",
        ),
        ("{{ other }}", "cannot render etc/x.j2:1: undefined value"),
        ("a\nb\n{% if %}", "cannot render etc/x.j2:3: syntax error"),
        ("{{ 1 | nofilter }}", "etc/x.j2:1: unknown filter"),
        ("{% include '/etc/passwd' %}", "etc/x.j2:1: "),
    ] {
        let said = one(source).expect_err(source).to_string();
        assert!(said.contains(wanted), "{source}: {said}");
    }
    let said = one("a\n{{ vars.prot }}\n")
        .expect_err("undefined")
        .to_string();
    assert!(said.ends_with("vars.prot"), "{said}");
}

#[test]
fn what_a_template_may_take_is_bounded() {
    let endless = "{% for a in range(10000) %}{% for b in range(10000) %}{% set c = 1 %}{% endfor %}{% endfor %}";
    let said = one(endless).expect_err("too many steps").to_string();
    assert!(said.contains("more than 20000000 steps"), "{said}");
    let long = "{% for a in range(10000) %}0123456789{% endfor %}";
    let said = one(long).expect_err("too long").to_string();
    assert!(said.contains("becomes more than 10000 bytes"), "{said}");
    let recursive = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
    assert!(one(recursive).is_err(), "it ends");
}

#[test]
fn a_template_becomes_its_file_with_the_same_mode() {
    let (dir, templates) = folder(&[("etc/x.conf.j2", "p {{ vars.port }}\n"), ("y", "{{ raw }}")]);
    let path = dir.path().join("etc/x.conf.j2");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("its mode");
    render_all(dir.path(), &templates, &values()).expect("renders");
    let made = dir.path().join("etc/x.conf");
    assert_eq!(fs::read_to_string(&made).expect("is there"), "p 8080\n");
    let mode = fs::metadata(&made).expect("is there").mode() & 0o7777;
    assert_eq!(mode, 0o640);
    assert!(!path.exists(), "the template is gone");
    let other = fs::read_to_string(dir.path().join("y")).expect("is there");
    assert_eq!(other, "{{ raw }}", "others are left alone");
}

#[test]
fn only_what_a_file_becomes_counts_for_its_digest() {
    let digest = |files: &[(&str, &str)], values: &TemplateValues| {
        let (dir, templates) = folder(files);
        render_all(dir.path(), &templates, values).expect("renders")
    };
    let files = [
        ("x.j2", "{{ vars.port }}"),
        ("z.j2", "{{ facts.ip_address }}"),
    ];
    let first = digest(&files, &values());
    let mut other = values();
    other.vars["unused"] = json!(1);
    other.cluster["web3"] = json!({"ip_address": "10.0.0.3"});
    assert_eq!(
        digest(&files, &other),
        first,
        "nothing that they use has changed"
    );
    other.vars["port"] = json!(81);
    assert_ne!(digest(&files, &other), first);
    let mut moved = values();
    moved.cluster["web1"]["ip_address"] = json!("10.0.0.9");
    assert_ne!(digest(&files, &moved), first);
    let renamed = [
        ("x.j2", "{{ vars.port }}"),
        ("y.j2", "{{ facts.ip_address }}"),
    ];
    assert_ne!(digest(&renamed, &values()), first);
}

#[test]
fn a_file_that_is_there_is_not_replaced() {
    let (dir, templates) = folder(&[("a/x.j2", "new"), ("a/x", "old")]);
    let error = render_all(dir.path(), &templates, &values()).expect_err("is refused");
    let said = error.to_string();
    assert!(said.contains("both a/x and a/x.j2"), "{said}");
    let old = fs::read_to_string(dir.path().join("a/x")).expect("is there");
    assert_eq!(old, "old");
}

#[test]
fn what_is_no_text_is_refused_with_its_line() {
    let (dir, templates) = folder(&[("x.j2", "")]);
    fs::write(dir.path().join("x.j2"), b"a\n\xff\n").expect("written");
    let said = render_all(dir.path(), &templates, &values()).expect_err("is refused");
    assert!(
        said.to_string().contains("x.j2:2: it is not UTF-8"),
        "{said}"
    );
}
