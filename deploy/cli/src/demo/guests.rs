//! Software that nobody here wrote, where it is installed: nginx with curl, PostgreSQL with pgbench,
//! Redis. Started in the server pod in the foreground, on folders of the demo alone.
//! Never: installs anything, touches a service of the host, or calls an absent program a success.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use myelin_lab::Command;
use nix::unistd::User;
use tokio::time::{Instant, sleep};

use super::stage::{Load, START_LIMIT, Stage};

const NGINX_PORT: u16 = 8081;
const POSTGRES_PORT: u16 = 5432;
const REDIS_PORT: u16 = 6379;

/// Where daemons live that an ordinary user's PATH does not name.
const MORE_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin"];
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// Transactions of one pgbench run: 2 connections with 10 each.
const TRANSACTIONS: u64 = 20;

/// The name of whatever is not there.
pub(super) struct Missing(pub(super) String);

impl Stage {
    /// Starts what is installed and adds its clients to the loads; says what is not.
    pub(super) async fn start_guests(&mut self) -> Result<Vec<Missing>> {
        let mut missing = Vec::new();
        match (find("nginx"), find("curl")) {
            (Some(nginx), Some(curl)) => self.nginx(&nginx, &curl).await?,
            _ => missing.push(Missing("nginx and curl".to_owned())),
        }
        match (find("redis-server"), find("redis-cli")) {
            (Some(server), Some(client)) => self.redis(&server, &client).await?,
            _ => missing.push(Missing("Redis".to_owned())),
        }
        match PostgresTools::find(self.ground.tells_uids_apart()) {
            Some(tools) => self.postgres(&tools).await?,
            None => missing.push(Missing("PostgreSQL with pgbench".to_owned())),
        }
        Ok(missing)
    }

    async fn nginx(&mut self, nginx: &Path, curl: &Path) -> Result<()> {
        let (home, canary) = (self.make_dir("nginx", None)?, self.canary("nginx"));
        let shown = home.display();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {shown}/{kind};\n"))
            .concat();
        let text = format!(
            "user root;\ndaemon off;\nmaster_process off;\npid {shown}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\n{temp}access_log off;\nserver {{\nlisten [::]:{NGINX_PORT} ipv6only=off;\n\
             location / {{ return 200 \"{canary}\\n\"; }}\n}}\n}}\n"
        );
        let file = home.join("nginx.conf");
        fs::write(&file, text).context("cannot write nginx.conf")?;
        let command = self.server_command(nginx, "nginx").arg("-p").arg(&home);
        let command = command.args(["-e", "stderr", "-c"]).arg(&file);
        self.add_guest(command, NGINX_PORT).await?;
        let url = format!("http://{}:{NGINX_PORT}/{canary}", self.pods.server.v4());
        let run = [&path(curl), "-sS", "--fail", "--max-time", "5", &url];
        self.add_load("nginx", "nginx, asked by curl", &canary, 1, &canary.clone(), &run);
        Ok(())
    }

    async fn redis(&mut self, server: &Path, client: &Path) -> Result<()> {
        let (home, canary) = (self.make_dir("redis", None)?, self.canary("redis"));
        let command = self
            .server_command(server, "redis")
            .args(["--port", &REDIS_PORT.to_string(), "--bind", "0.0.0.0", "::"])
            .args(["--protected-mode", "no", "--save", "", "--appendonly", "no"])
            .args(["--daemonize", "no", "--loglevel", "warning", "--dir"])
            .arg(&home);
        self.add_guest(command, REDIS_PORT).await?;
        let (host, port) = (self.pods.server.v4().to_string(), REDIS_PORT.to_string());
        let run = [&path(client), "-h", &host, "-p", &port, "ECHO", &canary];
        self.add_load("redis", "Redis, asked by redis-cli", &canary, 1, &canary.clone(), &run);
        Ok(())
    }

    /// PostgreSQL refuses to run as root, so it becomes its own user, or, where only one user exists,
    /// looks like one in a user namespace of its own.
    async fn postgres(&mut self, tools: &PostgresTools) -> Result<()> {
        let owner = self.ground.tells_uids_apart().then_some(tools.uid);
        let (home, canary) = (self.make_dir("postgres", owner)?, self.canary("postgres"));
        let made = tools
            .as_other(self, &tools.initdb)
            .args(["-A", "trust", "-U", "demo", "-E", "UTF8", "--no-locale", "-N", "-D"])
            .arg(&home)
            .env("LC_ALL", "C")
            .current_dir("/")
            .spawn()?;
        made.wait_success(START_LIMIT).await.context("initdb failed")?;
        let hba = "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n";
        fs::write(home.join("pg_hba.conf"), hba).context("cannot write pg_hba.conf")?;
        let command = tools
            .as_other(self, &tools.postgres)
            .args(["-c", "listen_addresses=*", "-c", "unix_socket_directories=", "-c", "fsync=off"])
            .args(["-c", "ssl=off", "-c", "shared_buffers=16MB", "-c", "max_connections=20", "-D"])
            .arg(&home)
            .env("LC_ALL", "C")
            .current_dir("/");
        self.add_guest(command, POSTGRES_PORT).await?;
        // It takes connections before it takes questions.
        if let Some(postgres) = self.services.last() {
            postgres.wait_line("ready to accept connections", START_LIMIT).await?;
        }
        let script = self.make_dir("pgbench", None)?.join("letters.sql");
        let text = format!("INSERT INTO letters (body) VALUES ('{canary}') RETURNING body;\n");
        fs::write(&script, text).context("cannot write the script of pgbench")?;
        let server = self.pods.server.v4();
        let at = format!(
            "host={server} port={POSTGRES_PORT} user=demo dbname=postgres sslmode=disable gssencmode=disable"
        );
        let table = "CREATE TABLE letters (id bigserial PRIMARY KEY, body text NOT NULL)";
        let psql = self.pods.server.command(&tools.psql);
        let psql = psql.args([&at, "-q", "-v", "ON_ERROR_STOP=1", "-c", table]).current_dir("/");
        psql.spawn()?.wait_success(START_LIMIT).await.context("psql cannot make a table")?;
        let script = path(&script);
        let run = [&path(&tools.pgbench), "-n", "-c", "2", "-t", "10", "-f", &script, &at];
        let expect =
            format!("number of transactions actually processed: {TRANSACTIONS}/{TRANSACTIONS}");
        self.add_load(
            "postgres",
            "PostgreSQL, asked by pgbench",
            &canary,
            TRANSACTIONS,
            &expect,
            &run,
        );
        Ok(())
    }

    fn server_command(&self, program: &Path, name: &str) -> Command {
        let command = self.pods.server.command(program);
        command.label(format!("server/{name}")).tee(self.log(name))
    }

    /// Starts it and waits until its port takes connections.
    async fn add_guest(&mut self, command: Command, port: u16) -> Result<()> {
        let proc = command.spawn()?;
        let deadline = Instant::now() + START_LIMIT;
        let to = SocketAddr::new(self.pods.server.v4(), port);
        while self.pods.server.tcp_connect(to).await.is_err() {
            if !proc.is_running() || Instant::now() > deadline {
                bail!("{} does not listen; {}", proc.label(), proc.last_words());
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.services.push(proc);
        Ok(())
    }

    fn add_load(
        &mut self,
        name: &'static str,
        what: &str,
        canary: &str,
        counts: u64,
        expect: &str,
        run: &[&str],
    ) {
        let counts = counts.to_string();
        let mut args = vec!["repeat", "--counts", &counts, "--expect", expect];
        args.push("--");
        args.extend(run);
        let args = args.into_iter().map(str::to_owned).collect();
        let (what, canary) = (what.to_owned(), canary.to_owned());
        self.loads.push(Load { name, what, canary, args, proc: None });
    }
}

/// PostgreSQL's programs and the user that it runs as.
struct PostgresTools {
    initdb: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
    pgbench: PathBuf,
    uid: u32,
    gid: u32,
    /// Makes the user namespace, where the demo itself has one user only.
    unshare: Option<PathBuf>,
}

impl PostgresTools {
    fn find(tells_uids_apart: bool) -> Option<Self> {
        let newest = || {
            let versions = fs::read_dir(POSTGRES_VERSIONS).ok()?;
            let mut folders: Vec<PathBuf> =
                versions.flatten().map(|entry| entry.path().join("bin")).collect();
            folders.sort();
            folders.pop()
        };
        let beside = |name: &str| {
            let versioned = newest().map(|folder| folder.join(name)).filter(|path| path.is_file());
            versioned.or_else(|| find(name))
        };
        let named = |name| User::from_name(name).ok().flatten();
        let user = named("postgres").or_else(|| named("nobody"))?;
        let unshare = if tells_uids_apart { None } else { Some(find("unshare")?) };
        Some(Self {
            initdb: beside("initdb")?,
            postgres: beside("postgres")?,
            psql: beside("psql")?,
            pgbench: beside("pgbench")?,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            unshare,
        })
    }

    fn as_other(&self, stage: &Stage, program: &Path) -> Command {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match &self.unshare {
            None => stage.server_command(program, &name).identity(self.uid, self.gid),
            Some(unshare) => stage
                .server_command(unshare, &name)
                .args(["--user", &format!("--map-user={}", self.uid)])
                .arg(format!("--map-group={}", self.gid))
                .arg("--")
                .arg(program),
        }
    }
}

/// The first program of this name in the PATH or where daemons live.
fn find(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&paths).chain(MORE_FOLDERS.map(PathBuf::from));
    named.map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: not installed, so not part of this demo", self.0)
    }
}
