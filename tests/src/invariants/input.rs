//! A job reads all of its input as what it is, or says what it does not read.

use situ_tests::harness::TestCluster;

use crate::SITU;

/// `one two\nthree ` and `two\n`, each a member of one gzip file.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\xcf\x4b\x55\x28\x29\xcf\xe7\x2a\xc9\x28\x4a\x4d\x55\x00\x00\
    \x33\xcb\x6e\x9a\x0e\x00\x00\x00\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x2b\x29\xcf\xe7\x02\x00\x74\x08\x17\x96\x04\x00\x00\
    \x00";

#[tokio::test(flavor = "multi_thread")]
async fn input_is_read_whole_and_as_what_it_is_or_refused() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let count = |input: &str, output: &str, more: &[&str]| {
        let arguments = [&["job", "run", "wordcount", input, output, "--reducers", "1"], more].concat();
        situ.situ(&arguments, b"")
    };
    let _ = situ.situ(&["fs", "mkdir", "-p", "/zipped", "/bad", "/deep/below"], b"").ok();
    situ.put("/zipped/text.gz", GZIP).await;
    let _ = count("/zipped", "/out-gz", &[]).ok();
    assert_eq!(situ.read("/out-gz/part-00000").await.unwrap(), b"one\t1\nthree\t1\ntwo\t2\n");
    for (name, content, message) in [
        ("cut.gz", &GZIP[..20], "it ends too early"),
        ("plain.gz", b"plain text\n", "begins with \"plai\""),
        ("part.snappy", b"whatever\n", "compressed with Snappy"),
    ] {
        let path = format!("/bad/{name}");
        situ.put(&path, content).await;
        count(&path, "/none", &[]).fails(1, &[&path, message]);
    }

    situ.put("/deep/a", b"a\n").await;
    situ.put("/deep/below/b", b"b\n").await;
    count("/deep", "/none", &[]).fails(1, &["/deep/below is a directory within a directory", "--recursive"]);
    let _ = count("/deep", "/out-deep", &["--recursive"]).ok();
    assert_eq!(situ.read("/out-deep/part-00000").await.unwrap(), b"a\t1\nb\t1\n");
    let grep = ["job", "run", "grep", "b", "/deep", "/out-grep", "--recursive"];
    let _ = situ.situ(&grep, b"").ok();
    assert_eq!(situ.read("/out-grep/part-*").await.unwrap(), b"b\n");

    let either = "/{deep/below,zipped/text.gz}";
    let _ = count(either, "/out-either", &[]).ok();
    assert_eq!(situ.read("/out-either/part-00000").await.unwrap(), b"b\t1\none\t1\nthree\t1\ntwo\t2\n");
    let listed = situ.situ(&["fs", "du", either], b"").ok().text();
    assert!(listed.contains("/deep/below") && listed.contains("/zipped/text.gz"), "{listed}");
    count("/deep/**", "/none", &[]).fails(2, &["\"**\"", "any depth"]);
    situ.situ(&["fs", "ls", "/deep/**"], b"").fails(2, &["\"**\"", "any depth"]);
    situ.stop().await;
}
