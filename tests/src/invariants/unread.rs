//! Input is read as what it is, or refused; never left out in silence.

use situ_tests::harness::TestCluster;

use crate::SITU;

/// `a b a` and a line break, as gzip(1) writes it.
const GZIPPED: [u8; 26] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x4b, 0x54, 0x48, 0x52, 0x48, 0xe4, 0x02, 0x00, 0xc8,
    0x98, 0xfa, 0x86, 0x06, 0x00, 0x00, 0x00,
];

#[tokio::test(flavor = "multi_thread")]
async fn compressed_input_is_decoded_by_its_ending() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    situ.put("/text.gz", &GZIPPED).await;
    let _ = situ.situ(&["job", "run", "wordcount", "/text.gz", "/out", "--reducers", "1"], b"").ok();
    assert_eq!(situ.read("/out/part-*").await.unwrap(), b"a\t2\nb\t1\n");
    // What cannot be decoded is no text either.
    situ.put("/broken.gz", b"a b a\n").await;
    situ.situ(&["job", "run", "wordcount", "/broken.gz", "/none"], b"").fails(1, &["/broken.gz"]);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_below_the_input_is_read_or_refused_by_name() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let _ = situ.situ(&["fs", "mkdir", "-p", "/in/below"], b"").ok();
    situ.put("/in/text", b"a\n").await;
    situ.put("/in/below/text", b"b\n").await;
    let said = situ.situ(&["job", "run", "wordcount", "/in", "/out", "--reducers", "1"], b"");
    if said.code == Some(0) {
        assert_eq!(situ.read("/out/part-*").await.unwrap(), b"a\t1\nb\t1\n");
    } else {
        said.fails(1, &["/in/below"]);
    }
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn globs_mean_what_hadoops_mean() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let _ = situ.situ(&["fs", "mkdir", "-p", "/a/b"], b"").ok();
    let _ = situ.situ(&["fs", "mkdir", "/c"], b"").ok();
    situ.put("/a/b/text", b"a\n").await;
    situ.put("/c/text", b"b\n").await;
    let _ = situ.situ(&["job", "run", "wordcount", "/{a/b,c}/text", "/out", "--reducers", "1"], b"").ok();
    assert_eq!(situ.read("/out/part-*").await.unwrap(), b"a\t1\nb\t1\n");
    assert_eq!(situ.situ(&["fs", "cat", "/{a/b,c}/text"], b"").ok().text(), "a\nb\n");
    situ.stop().await;
}
