//! The one thread that starts processes.
//!
//! Linux sends a child its death signal when the *thread* that started it ends, not the program.
//! This thread lives as long as the program, whichever thread, test or runtime asked.

use std::{
    io,
    sync::{LazyLock, mpsc},
};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

struct Order {
    command: Command,
    /// The runtime that will watch the child.
    runtime: Handle,
    started: oneshot::Sender<io::Result<Child>>,
}

static ORDERS: LazyLock<Option<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, taken) = mpsc::channel::<Order>();
    let thread = std::thread::Builder::new().name("inferq-spawner".to_owned());
    let thread = thread.spawn(move || {
        for mut order in taken {
            let _entered = order.runtime.enter();
            // Whoever asked may have left; the child is then dropped, which kills it.
            order.started.send(order.command.spawn()).ok();
        }
    });
    thread.ok().map(|_| orders)
});

/// Starts a process that is watched by the current runtime.
pub(super) async fn spawn(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (started, child) = oneshot::channel();
    let order = Order {
        command,
        runtime: Handle::current(),
        started,
    };
    ORDERS
        .as_ref()
        .ok_or_else(gone)?
        .send(order)
        .map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}
