//! What one client may take of the webhook: bodies, and connections that say nothing more.
//!
//! Never: a wait for real time.

// SPDX-License-Identifier: Apache-2.0

use super::*;

/// A question whose body does not come.
async fn holding(served: &Served) -> TlsStream<TcpStream> {
    let mut stream = served.connect().await.unwrap();
    let head = b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    stream
}

async fn whole(served: &Served) -> TlsStream<TcpStream> {
    let mut stream = served.connect().await.unwrap();
    let length = DEPLOYMENT.len();
    let head = format!("POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(DEPLOYMENT.as_bytes()).await.unwrap();
    stream
}

async fn status(stream: &mut TlsStream<TcpStream>) -> String {
    let mut said = vec![0; 12];
    stream.read_exact(&mut said).await.unwrap();
    String::from_utf8(said).unwrap()
}

#[tokio::test(start_paused = true)]
async fn so_many_bodies_are_held_at_once_and_the_next_one_has_its_turn_after_them() {
    let served = serve(Some("pem")).await;
    let mut held = Vec::new();
    for _ in 1..MAX_REVIEWS {
        held.push(holding(&served).await);
    }
    let begun = Instant::now();
    assert_eq!(status(&mut whole(&served).await).await, "HTTP/1.1 200", "one turn is left");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    held.push(holding(&served).await);
    // Time passes only when there is nothing else to do.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut late = whole(&served).await;
    let waited = tokio::time::timeout(Duration::from_secs(1), status(&mut late)).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(held.pop());
    assert_eq!(status(&mut late).await, "HTTP/1.1 200");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_gets_no_turn_is_answered_before_the_api_server_gives_up() {
    let mut served = serve(Some("pem")).await;
    let metrics = Arc::clone(&served.metrics);
    let mut full = built(Arc::clone(&served.identity), Some("pem"), &["10.96.0.5:15010"], metrics);
    full.reviews = Semaphore::new(0);
    served.address = listening(full);
    let begun = Instant::now();
    assert_eq!(status(&mut whole(&served).await).await, "HTTP/1.1 503");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(served.counted("reason=\"\",result=\"unready\""), "{}", served.metrics.render());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let served = serve(Some("pem")).await;
    let mut stream = whole(&served).await;
    assert_eq!(status(&mut stream).await, "HTTP/1.1 200");
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
