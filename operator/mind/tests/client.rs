//! The client against a strict fake of vLLM, over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use batos_mind::{ApiKey, ChatMessage, Client, ClientError, Endpoint, Input, ModelRequest, Server, Spent, Usage};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

struct Fake(String);

async fn fake() -> Fake {
    // A client installs what TLS needs, for the tests' own requests as well.
    Client::new(Endpoint::new("http://localhost/v1", "m")).unwrap();
    Fake(format!("http://{}", fake_vllm::start("base").await.unwrap()))
}

impl Fake {
    async fn script(&self, steps: Value) {
        let http = reqwest::Client::new();
        let response = http.post(format!("{}/fake/script", self.0)).json(&steps).send().await.unwrap();
        assert_eq!(response.status(), 200, "{steps}");
    }

    async fn requests(&self) -> Vec<Value> {
        reqwest::get(format!("{}/fake/requests", self.0)).await.unwrap().json().await.unwrap()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(10),
            ..Endpoint::new(&format!("{}/v1/", self.0), "base")
        }
    }

    fn client(&self) -> Client {
        Client::new(self.endpoint()).unwrap()
    }
}

fn request() -> ModelRequest {
    let content = "write a method".to_owned();
    ModelRequest {
        input: Input::Chat(vec![ChatMessage { role: "user", content }]),
        choices: 1,
        max_tokens: 64,
        seed: None,
        temperature: 0.5,
        grammar: None,
        model: None,
    }
}

#[tokio::test]
async fn a_chat_and_a_completion_are_answered_whole_and_as_streams() {
    let fake = fake().await;
    let client = fake.client();
    for input in [request().input, Input::Text("write a method".to_owned())] {
        let request = ModelRequest { input, choices: 2, ..request() };
        fake.script(json!([{ "texts": ["one two", "three"] }, { "texts": ["one two", "three"] }])).await;
        let whole = client.ask(&request).await.unwrap();
        assert_eq!(whole.texts, ["one two", "three"]);
        assert_eq!(whole.usage, Usage { prompt_tokens: 3, completion_tokens: 3 });
        let mut heard = Vec::new();
        let streamed = client.stream(&request, |text| heard.push(text.to_owned())).await.unwrap();
        assert_eq!(streamed, whole);
        assert_eq!(heard, ["one ", "two", "three"]);
    }
    let usage = Usage { prompt_tokens: 12, completion_tokens: 12 };
    assert_eq!(client.spent(), Spent { requests: 4, usage });
    for request in fake.requests().await {
        assert_eq!(request["ignored"], json!([]), "every field is one of vLLM's");
    }
}

#[tokio::test]
async fn vllm_gets_the_grammar_and_is_asked_once_who_it_is() {
    let fake = fake().await;
    let client = fake.client();
    let request = ModelRequest { grammar: Some("root ::= \"a\"".to_owned()), ..request() };
    client.stream(&request, |_| {}).await.unwrap();
    assert_eq!(client.server().await, Ok(&Server::Vllm("0.33.0".to_owned())));
    assert_eq!(fake.requests().await[0]["body"]["structured_outputs"], json!({ "grammar": "root ::= \"a\"" }));

    // A server whose engine has no grammars gets none any more.
    fake.script(json!([{ "fault": "status", "status": 400, "message": "Invalid grammar specification." }])).await;
    client.ask(&request).await.unwrap();
    client.ask(&request).await.unwrap();
    let sent: Vec<bool> = fake.requests().await.iter().map(|r| r["body"].get("structured_outputs").is_some()).collect();
    assert_eq!(sent, [true, true, false, false]);

    // Whoever asks for a stream is told in the stream.
    let client = fake.client();
    let request = ModelRequest { grammar: Some("nonsense".to_owned()), ..request };
    client.stream(&request, |_| {}).await.unwrap();
    let sent: Vec<bool> = fake.requests().await.iter().map(|r| r["body"].get("structured_outputs").is_some()).collect();
    assert_eq!(sent.get(4..), Some(&[true, false][..]));
}

#[tokio::test]
async fn another_server_gets_no_fields_of_vllm() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"choices\":[{\"index\":0,\"message\":{\"content\":\"yes\"},\"finish_reason\":\"stop\"}]}",
        ] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 65536];
            let mut text = String::new();
            while !text.contains("\r\n\r\n") || (text.starts_with("POST") && !text.ends_with('}')) {
                let read = socket.read(&mut buffer).await.unwrap();
                text += std::str::from_utf8(&buffer[..read]).unwrap();
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
            seen.push(text);
        }
        seen
    });
    let client = Client::new(Endpoint::new(&url, "m")).unwrap();
    let request = ModelRequest { grammar: Some("root ::= \"a\"".to_owned()), ..request() };
    let answer = client.ask(&request).await.unwrap();
    assert_eq!((answer.texts, answer.usage), (vec!["yes".to_owned()], Usage::default()));
    let seen = server.await.unwrap();
    assert!(seen[0].starts_with("GET /version "), "{}", seen[0]);
    assert!(seen[1].starts_with("POST /v1/chat/completions ") && !seen[1].contains("structured"), "{}", seen[1]);
}

#[tokio::test]
async fn what_the_server_cannot_do_now_is_tried_again() {
    let fake = fake().await;
    let client = fake.client();
    fake.script(json!([
        { "fault": "status", "status": 503 },
        { "fault": "status", "status": 429, "retry_after": 0 },
        { "fault": "status", "status": 500 },
        { "texts": ["at last"] },
        { "fault": "status", "status": 429, "retry_after": 3600 },
        { "fault": "status", "status": 401, "message": "wrong key" },
    ]))
    .await;
    assert_eq!(client.ask(&request()).await.unwrap().texts, ["at last"]);
    assert_eq!(client.spent().requests, 4);
    // Nobody waits an hour for a call that may take twenty seconds.
    let retry_after = Some(Duration::from_secs(3600));
    assert_eq!(client.ask(&request()).await, Err(ClientError::RateLimited { retry_after }));
    let refused = ClientError::Refused { status: 401, message: "wrong key".to_owned() };
    assert_eq!(client.stream(&request(), |_| {}).await, Err(refused));
    assert_eq!(client.spent().requests, 6);

    fake.script(json!(vec![json!({ "fault": "status", "status": 502 }); 4])).await;
    assert!(matches!(client.ask(&request()).await, Err(ClientError::Refused { status: 502, .. })));
    assert_eq!(client.spent().requests, 10);
}

#[tokio::test]
async fn what_was_answered_badly_is_an_error_and_not_tried_again() {
    let fake = fake().await;
    let client = fake.client();
    let answers = |fault: &str| json!([{ "fault": fault, "texts": ["one two three four five six"] }]);
    for (fault, streamed) in [("cut", true), ("error", true), ("cut", false)] {
        fake.script(answers(fault)).await;
        let answer = if streamed { client.stream(&request(), |_| {}).await } else { client.ask(&request()).await };
        assert!(matches!(answer, Err(ClientError::Unreachable { sent: true, .. })), "{fault}: {answer:?}");
    }
    for (fault, streamed) in [("garbage", true), ("garbage", false), ("flood", true), ("flood", false)] {
        fake.script(answers(fault)).await;
        let answer = if streamed { client.stream(&request(), |_| {}).await } else { client.ask(&request()).await };
        assert!(matches!(answer, Err(ClientError::Malformed(_))), "{fault}: {answer:?}");
    }
    let cut = json!([{ "texts": ["withdraw: n = ( balance"], "finish_reason": "length" }]);
    fake.script(cut.clone()).await;
    assert!(matches!(client.ask(&request()).await, Err(ClientError::Truncated { .. })));
    fake.script(cut).await;
    let usage = Usage { prompt_tokens: 3, completion_tokens: 5 };
    assert_eq!(client.stream(&request(), |_| {}).await, Err(ClientError::Truncated { usage }));
    assert_eq!(client.spent().requests, 9, "none was tried again");
}

#[tokio::test]
async fn calls_end_in_time_and_so_do_silences() {
    let fake = fake().await;
    let idle_timeout = Duration::from_millis(100);
    let client = Client::new(Endpoint { idle_timeout, ..fake.endpoint() }).unwrap();
    let stall = json!([{ "fault": "stall", "texts": ["one two three"] }]);
    fake.script(stall.clone()).await;
    let mut heard = String::new();
    let answer = client.stream(&request(), |text| heard += text).await;
    assert_eq!((answer, heard.as_str()), (Err(ClientError::TimedOut(idle_timeout)), "one "));

    let timeout = Duration::from_millis(200);
    let client = Client::new(Endpoint { timeout, ..fake.endpoint() }).unwrap();
    for step in [stall, json!([{ "fault": "hang" }])] {
        fake.script(step).await;
        assert_eq!(client.stream(&request(), |_| {}).await, Err(ClientError::TimedOut(timeout)));
    }
    assert_eq!(client.stream(&request(), |_| {}).await.unwrap().texts, ["base: write a method"], "its turn came back");
}

#[tokio::test]
async fn only_so_many_calls_run_at_once_and_a_dropped_one_gives_its_turn_back() {
    let fake = fake().await;
    let client = Client::new(Endpoint { max_concurrency: 1, ..fake.endpoint() }).unwrap();
    fake.script(json!([{ "fault": "hang" }])).await;
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.ask(&request()).await }
    });
    while fake.requests().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.ask(&request()).await }
    });
    for _ in 0..20 {
        assert_eq!(fake.requests().await.len(), 1);
    }
    hanging.abort();
    assert_eq!(waiting.await.unwrap().unwrap().texts, ["base: write a method"]);
    assert_eq!(fake.requests().await.len(), 2);
}

#[tokio::test]
async fn nobody_there_is_said_soon_and_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(Endpoint { tries: 2, ..Endpoint::new(&url, "m") }).unwrap();
    let began = Instant::now();
    let error = client.ask(&request()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { sent: false, .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    for url in ["vllm:8000", "ftp://x/v1", "http://user:secret@x/v1", "http://x/v1?key=1", ""] {
        let error = Client::new(Endpoint::new(url, "m")).unwrap_err();
        assert!(matches!(&error, ClientError::BadEndpoint(why) if !why.contains("secret")), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn the_key_is_sent_and_never_shown() {
    let fake = fake().await;
    let key = ApiKey::new("sk-0123456789abcdef");
    let client = Client::new(Endpoint { key, ..fake.endpoint() }).unwrap();
    let says = json!([{ "fault": "status", "status": 401, "message": "Incorrect API key: sk-0123456789abcdef" }]);
    fake.script(says).await;
    let error = client.ask(&request()).await.unwrap_err();
    assert_eq!(error.to_string(), "the model's server answered 401: Incorrect API key: [key]");
    assert_eq!(fake.requests().await[0]["authorization"], "Bearer sk-0123456789abcdef");
    assert!(!format!("{client:?}").contains("sk-"), "{client:?}");
}
