//! Lists and watches of what nobody expects: pages without a measure, objects that make no sense, an API
//! server that forgets at once.
//!
//! Never: a wait for a moment; what has to come is waited for.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing_subscriber::filter::LevelFilter;

use super::*;

/// Far more than any of it takes; who waits so long has failed.
const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "hunter2";

#[derive(Clone, Debug, Deserialize)]
struct Map {
    metadata: Meta,
    #[serde(default)]
    sizes: Vec<u16>,
}

impl Read for Map {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// What is told, as a test compares it.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    All(Vec<String>),
    Now(String, Vec<u16>),
    Gone(String),
}

fn maps() -> Resource {
    Resource::core("configmaps")
}

fn sized(name: &str, sizes: &Value) -> Value {
    json!({ "metadata": { "name": name, "namespace": "shop" }, "sizes": sizes })
}

/// Follows all maps until dropped.
fn follow(cluster: Cluster) -> mpsc::UnboundedReceiver<Told> {
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let name = |map: &Map| map.metadata.name.clone();
        let tell = |news: News<Map>| {
            let _ = tell.send(match news {
                News::All(maps) => Told::All(maps.iter().map(name).collect()),
                News::Now(map) => Told::Now(name(&map), map.sizes),
                News::Gone(meta) => Told::Gone(meta.name),
            });
        };
        cluster.follow(MAPS, tell).await
    });
    told
}

async fn next(told: &mut mpsc::UnboundedReceiver<Told>) -> Told {
    timeout(LIMIT, told.recv()).await.unwrap().unwrap()
}

/// All that is logged on this thread, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_max_level(LevelFilter::TRACE);
        let lines = lines.with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(lines))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_object_that_makes_no_sense_costs_itself_and_is_named_once_without_its_contents() {
    let (api, cluster) = connected().await;
    let (log, _logging) = Log::begin();
    for (name, sizes) in [("a", json!([1])), ("b", json!([SECRET])), ("c", json!([3]))] {
        api.put(&maps(), sized(name, &sizes));
    }
    let mut told = follow(cluster);
    assert_eq!(next(&mut told).await, Told::All(vec!["a".to_owned(), "c".to_owned()]));
    // What it was before counts no more either.
    for _ in 0..2 {
        api.put(&maps(), sized("c", &json!([SECRET])));
        assert_eq!(next(&mut told).await, Told::Gone("c".to_owned()));
    }
    api.put(&maps(), sized("b", &json!([2])));
    assert_eq!(next(&mut told).await, Told::Now("b".to_owned(), vec![2]));
    api.remove(&maps(), "shop", "a").unwrap();
    assert_eq!(next(&mut told).await, Told::Gone("a".to_owned()));
    let text = log.text();
    for name in ["shop/b", "shop/c"] {
        assert_eq!(text.matches(&format!("name=\"{name}\"")).count(), 1, "{text}");
    }
    assert!(!text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn a_list_without_sense_is_no_list_of_nothing_and_is_not_quoted() {
    let (api, cluster) = connected().await;
    let (log, _logging) = Log::begin();
    api.put(&maps(), sized(SECRET, &json!([1])));
    api.trouble(Trouble::next(1, Fault::Cut).at("limit="));
    let said = cluster.list_of::<Map>(MAPS, 10).await.unwrap_err();
    assert!(matches!(said, ClusterError::Unreadable { .. }), "{said}");
    assert!(!said.to_string().contains(SECRET) && !log.text().contains(SECRET));
    // An object, where a list was asked for.
    let one = format!("{MAPS}/{SECRET}");
    assert!(matches!(cluster.list(&one, 10).await, Err(ClusterError::Unreadable { .. })));
}

#[tokio::test]
async fn pages_that_are_too_large_are_asked_for_in_smaller_ones() {
    let (api, cluster) = connected().await;
    let large = "x".repeat(MAX_ANSWER_BYTES / 3);
    for name in ["a", "b", "c", "d", "e"] {
        let mut map = sized(name, &json!([1]));
        map["data"] = json!({ "large": large });
        api.put(&maps(), map);
    }
    let all = cluster.list_of::<Map>(MAPS, 4).await.unwrap();
    let names: Vec<&str> = all.items.iter().map(|map| map.metadata.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    // What is larger than any object is refused, and not read to its end.
    let mut map = sized("f", &json!([1]));
    map["data"] = json!({ "large": "x".repeat(MAX_ANSWER_BYTES) });
    api.put(&maps(), map);
    let said = cluster.list(MAPS, 4).await.unwrap_err();
    assert!(matches!(said, ClusterError::TooLong { .. }), "{said}");
}

#[tokio::test]
async fn an_api_server_that_forgets_at_once_is_asked_ever_more_seldom() {
    let (api, cluster) = connected().await;
    api.trouble(Trouble::next(1_000_000, Fault::Answer(410)).at("watch="));
    let began = Instant::now();
    let mut told = follow(cluster);
    for _ in 0..4 {
        assert_eq!(next(&mut told).await, Told::All(Vec::new()));
    }
    // Between four lists are three pauses, each twice as long as the one before.
    assert!(began.elapsed() >= Duration::from_millis(250 + 500 + 1_000), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_event_without_end_is_not_read_to_its_end() {
    let (api, cluster) = connected().await;
    // A watch that begins at nothing would not be told of what was in between.
    api.put(&Resource::core("secrets"), sized("other", &json!([1])));
    let mut told = follow(cluster);
    assert_eq!(next(&mut told).await, Told::All(Vec::new()));
    let mut map = sized("large", &json!([1]));
    map["data"] = json!({ "large": "x".repeat(2 * MAX_ANSWER_BYTES) });
    api.put(&maps(), map);
    // It is listed again, as what was missed may be anything; by then it has its measure.
    api.put(&maps(), sized("large", &json!([1])));
    assert_eq!(next(&mut told).await, Told::All(vec!["large".to_owned()]));
}
