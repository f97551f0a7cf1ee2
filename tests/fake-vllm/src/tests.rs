//! The rules of the table in `main.rs`, over HTTP.

use std::fs;
use std::path::{Path, PathBuf};

use axum::Router;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::api;
use crate::engine::{Engine, Limits};

struct Server(std::net::SocketAddr);

async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server(address)
}

/// A server with these caches, greatest rank 8, base model `base`.
async fn server(max_loras: usize, max_cpu_loras: usize) -> Server {
    let limits = Limits { max_loras, max_cpu_loras, max_lora_rank: 8, max_model_len: 512 };
    serve(api::router(Engine::new("base".to_owned(), "base".to_owned(), limits), true)).await
}

impl Server {
    async fn raw(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.raw("GET", path, "", "").await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, String) {
        self.raw("POST", path, "Content-Type: application/json\r\n", &body.to_string()).await
    }

    async fn load(&self, name: &str, path: &Path) -> (u16, String) {
        self.post("/v1/load_lora_adapter", json!({ "lora_name": name, "lora_path": path })).await
    }

    async fn chat(&self, model: &str) -> (u16, String) {
        let messages = json!([{ "role": "user", "content": "hello there" }]);
        self.post("/v1/chat/completions", json!({ "model": model, "messages": messages })).await
    }

    /// (id, root, parent) of each card
    async fn models(&self) -> Vec<(String, String, String)> {
        let (_, body) = self.get("/v1/models").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let text = |card: &Value, key: &str| card[key].as_str().unwrap_or_default().to_owned();
        body["data"].as_array().unwrap().iter().map(|c| (text(c, "id"), text(c, "root"), text(c, "parent"))).collect()
    }
}

fn adapter(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters").join(name)
}

/// A copy of an adapter that a test may spoil; gone at the end of the test.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fake-vllm-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(adapter("ledger").join(file), path.join(file)).unwrap();
        }
        Self(path)
    }

    fn configure(&self, key: &str, value: Value) {
        let file = self.0.join("adapter_config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config[key] = value;
        fs::write(file, config.to_string()).unwrap();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Status, and type, message and param of the error body, whose code repeats the status.
fn refused((status, body): (u16, String)) -> (u16, String, String, Value) {
    let body: Value = serde_json::from_str(&body).unwrap();
    let error = &body["error"];
    assert_eq!(error["code"], status, "{body}");
    (
        status,
        error["type"].as_str().unwrap().to_owned(),
        error["message"].as_str().unwrap().to_owned(),
        error["param"].clone(),
    )
}

#[tokio::test]
async fn an_adapter_is_loaded_answers_and_is_unloaded() {
    let server = server(1, 1).await;
    assert_eq!(server.get("/health").await, (200, String::new()));
    assert_eq!(server.get("/version").await.1, r#"{"version":"0.33.0"}"#);
    assert_eq!(refused(server.chat("ledger").await).0, 404);

    let loaded = server.load("ledger", &adapter("ledger")).await;
    assert_eq!(loaded, (200, "Success: LoRA adapter 'ledger' added successfully.".to_owned()));
    let root = adapter("ledger").display().to_string();
    let base = ("base".to_owned(), "base".to_owned(), String::new());
    assert_eq!(server.models().await, [base.clone(), ("ledger".to_owned(), root, "base".to_owned())]);

    let (status, body) = server.chat("ledger").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["model"]), (200, &json!("ledger")));
    assert_eq!(body.pointer("/choices/0/message/content").unwrap(), "ledger: hello there");
    let metrics = server.get("/metrics").await.1;
    let series =
        r#"vllm:lora_requests_info{max_lora="1",running_lora_adapters="ledger",waiting_lora_adapters="ledger"} 1"#;
    assert!(metrics.contains(series), "{metrics}");

    let unload = || server.post("/v1/unload_lora_adapter", json!({ "lora_name": "ledger" }));
    assert_eq!(unload().await, (200, "Success: LoRA adapter 'ledger' removed successfully.".to_owned()));
    assert_eq!(server.models().await, [base]);
    let (status, kind, message, _) = refused(unload().await);
    assert_eq!((status, kind.as_str()), (404, "NotFoundError"));
    assert_eq!(message, "The lora adapter 'ledger' cannot be found.");
    let (status, kind, message, param) = refused(server.chat("ledger").await);
    assert_eq!((status, kind.as_str(), param), (404, "NotFoundError", json!("model")));
    assert_eq!(message, "The model `ledger` does not exist. Valid aliases: base.");
}

#[tokio::test]
async fn what_a_request_says_wrong_is_400() {
    let server = server(1, 1).await;
    assert_eq!(server.load("ledger", &adapter("ledger")).await.0, 200);
    for (body, says) in [
        (json!({ "lora_name": "", "lora_path": "/a" }), "must be provided"),
        (json!({ "lora_name": "a", "lora_path": "" }), "must be provided"),
        (json!({ "lora_name": "ledger", "lora_path": adapter("poet") }), "has already been loaded"),
        (json!({ "lora_name": "base", "lora_path": adapter("poet") }), "base model"),
    ] {
        let (status, kind, message, _) = refused(server.post("/v1/load_lora_adapter", body.clone()).await);
        assert_eq!((status, kind.as_str()), (400, "InvalidUserInput"), "{body}");
        assert!(message.contains(says), "{body}: {message}");
    }
    for (body, field) in [(json!({ "lora_name": "a" }), "lora_path"), (json!({ "lora_path": "/a" }), "lora_name")] {
        let (status, kind, _, param) = refused(server.post("/v1/load_lora_adapter", body).await);
        assert_eq!((status, kind.as_str(), param), (400, "Bad Request", json!(format!("body.{field}"))));
    }
    let in_place = json!({ "lora_name": "ledger", "lora_path": adapter("poet"), "load_inplace": true });
    assert_eq!(server.post("/v1/load_lora_adapter", in_place).await.0, 200);
    assert_eq!(server.models().await.last().unwrap().1, adapter("poet").display().to_string());

    let json_type = "Content-Type: application/json; charset=utf-8\r\n";
    for (headers, body) in [("", "{}"), ("Content-Type: text/plain\r\n", "{}"), (json_type, "{"), (json_type, "1")] {
        for path in ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/chat/completions"] {
            let (status, kind, ..) = refused(server.raw("POST", path, headers, body).await);
            assert_eq!((status, kind.as_str()), (400, "Bad Request"), "{path} {headers:?} {body}");
        }
    }
}

#[tokio::test]
async fn an_adapter_that_the_engine_refuses_is_not_registered() {
    let server = server(1, 1).await;
    let (status, kind, message, _) = refused(server.load("none", Path::new("/no/such/adapter")).await);
    assert_eq!((status, kind.as_str()), (404, "NotFoundError"));
    assert_eq!(message, "Loading lora none failed: No adapter found for /no/such/adapter");
    let (_, _, message, _) = refused(server.load("none", Path::new("/tmp/no/such/adapter")).await);
    assert_eq!(message, "Loading lora none failed: No adapter found for <path>");

    let copy = Copy::new("refused");
    for (key, value, says) in [
        ("r", json!(9), "LoRA rank 9 is greater than max_lora_rank 8"),
        ("r", json!("x"), "rank"),
        ("use_dora", json!(true), "DoRA"),
        ("bias", json!("all"), "bias"),
        ("modules_to_save", json!(["lm_head"]), "modules_to_save"),
    ] {
        copy.configure(key, value);
        let (status, kind, message, _) = refused(server.load("a", &copy.0).await);
        assert_eq!((status, kind.as_str()), (500, "InternalServerError"), "{key}");
        assert!(message.contains(says), "{key}: {message}");
        fs::copy(adapter("ledger").join("adapter_config.json"), copy.0.join("adapter_config.json")).unwrap();
    }

    let file = copy.0.join("adapter_model.safetensors");
    let whole = fs::read(&file).unwrap();
    let renamed = String::from_utf8_lossy(&whole).replace("lora_A", "lora_X").into_bytes();
    for (what, bytes) in
        [("short", &whole[..whole.len() - 1]), ("tiny", &whole[..4]), ("huge", &[255; 16]), ("name", &renamed)]
    {
        fs::write(&file, bytes).unwrap();
        let (status, kind, ..) = refused(server.load("a", &copy.0).await);
        assert_eq!((status, kind.as_str()), (500, "InternalServerError"), "{what}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(refused(server.load("a", &copy.0).await).0, 500);
    fs::remove_file(copy.0.join("adapter_config.json")).unwrap();
    assert_eq!(refused(server.load("a", &copy.0).await).0, 404);
    assert_eq!(server.models().await.len(), 1);
}

#[tokio::test]
async fn an_adapter_that_was_pushed_out_is_read_again() {
    let server = server(1, 2).await;
    let copy = Copy::new("evicted");
    assert_eq!(server.load("first", &copy.0).await.0, 200);
    assert_eq!(server.load("second", &adapter("ledger")).await.0, 200);
    fs::remove_file(copy.0.join("adapter_config.json")).unwrap();
    // Off the GPU, but in the host's memory.
    assert_eq!(server.chat("first").await.0, 200);
    assert_eq!(server.chat("second").await.0, 200);
    // Unloading frees no place.
    assert_eq!(server.post("/v1/unload_lora_adapter", json!({ "lora_name": "second" })).await.0, 200);
    assert_eq!(server.load("third", &adapter("poet")).await.0, 200);
    assert_eq!(server.models().await.len(), 3);
    assert_eq!(server.get("/health").await.0, 200);
    let (status, _, message, _) = refused(server.chat("first").await);
    assert_eq!(status, 500);
    assert!(message.contains("EngineCore encountered an issue"), "{message}");
    assert_eq!(server.get("/health").await.0, 503);
}

#[tokio::test]
async fn a_wrong_grammar_is_told_in_the_stream_that_was_asked_for() {
    let server = server(1, 1).await;
    let ask = |stream: bool| {
        let messages = json!([{ "role": "user", "content": "hello" }]);
        let constraint = json!({ "grammar": "nonsense" });
        let body = json!({ "model": "base", "messages": messages, "stream": stream, "structured_outputs": constraint });
        server.post("/v1/chat/completions", body)
    };
    let (status, _, message, _) = refused(ask(false).await);
    assert_eq!((status, message.starts_with("Invalid grammar specification")), (400, true));
    let (status, events) = ask(true).await;
    assert_eq!(status, 200);
    assert!(events.contains(r#"data: {"error":{"code":400,"message":"Invalid grammar specification"#), "{events}");
    assert!(events.contains("data: [DONE]"), "{events}");
}

#[tokio::test]
async fn without_runtime_updates_the_routes_do_not_exist() {
    let limits = Limits { max_loras: 1, max_cpu_loras: 1, max_lora_rank: 8, max_model_len: 512 };
    let server = serve(api::router(Engine::new("base".to_owned(), "base".to_owned(), limits), false)).await;
    let answer = server.load("ledger", &adapter("ledger")).await;
    assert_eq!(answer, (404, r#"{"detail":"Not Found"}"#.to_owned()));
    assert_eq!(server.get("/v1/chat/completions").await, (405, r#"{"detail":"Method Not Allowed"}"#.to_owned()));
}
