//! A program with a broker inside: two clients in the process, one with a callback and one with a stream, a hook that
//! edits messages, and a TCP listener for everybody else.
//!
//! ```text
//! cargo run -p gateway --example embedded
//! ```
//!
//! It ends by itself and prints (the port differs):
//!
//! ```text
//! listening tcp:default 127.0.0.1:40123
//! sensor   sends plant/1/celsius 21.5: success
//! sensor   sends plant/2/celsius 80.2: success
//! display  plant/1/fahrenheit 70.7 (was plant/1/celsius)
//! display  plant/2/fahrenheit 176.4 (was plant/2/celsius)
//! sensor   is told: plant 2 is too hot
//! bye
//! ```

use std::{error::Error, sync::mpsc};

use tidegate::embed::{
    Broker, Client, ClientError, Message, MessageParts, PropertiesBuilder, Property, QoS, Received,
    Subscription, block_on,
    hooks::{Hook, HookContext, HookPoint, HookPoints, PublishVerdict},
};

/// Turns Celsius into Fahrenheit, and says so in a user property.
struct Fahrenheit;

impl Hook for Fahrenheit {
    fn name(&self) -> &str {
        "fahrenheit"
    }

    fn points(&self) -> HookPoints {
        HookPoints::of(&[HookPoint::MessagePublish])
    }

    fn message_publish(&self, ctx: &mut HookContext<'_>, message: &Message) -> PublishVerdict {
        edit(ctx, message).map_or(PublishVerdict::Continue, PublishVerdict::Replace)
    }
}

fn edit(ctx: &HookContext<'_>, message: &Message) -> Option<Message> {
    let plant = message.topic().strip_suffix("/celsius")?;
    let celsius: f64 = std::str::from_utf8(message.payload()).ok()?.parse().ok()?;
    let payload = format!("{:.1}", celsius * 1.8 + 32.0);
    let mut properties = PropertiesBuilder::new();
    properties.push(Property::User("was", message.topic()));
    let parts = MessageParts {
        topic: &format!("{plant}/fahrenheit"),
        qos: message.qos(),
        retain: message.retain(),
        expiry_interval: message.remaining_expiry_secs(ctx.now),
        properties: properties.as_properties(),
        payload: payload.as_bytes(),
    };
    parts.publish_absolute(ctx.now, message.origin())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut broker = Broker::builder()
        .set("listeners.tcp.default.bind", "127.0.0.1:0")
        .set("listeners.ws.default.enable", "false")
        .set("gateway.mqttsn.enable", "false")
        .hook(1000, Fahrenheit)
        .start()?;
    broker.listen()?;
    for (name, address) in broker.listening() {
        println!("listening {name} {address}");
    }

    // Any async runtime will do; a program without one has `block_on`.
    block_on(run(&broker))?;
    broker.shutdown();
    println!("bye");
    Ok(())
}

async fn run(broker: &Broker) -> Result<(), ClientError> {
    let display = broker.client("display").connect().await?;
    let sensor = broker.client("sensor").connect().await?;

    // A stream: the messages wait until this program takes them.
    let readings = display.subscribe("plant/+/fahrenheit", QoS::AtLeastOnce).await?;
    // A callback: it runs on a thread of its own.
    let (warning, warnings) = mpsc::sync_channel(1);
    let on_warning = move |received: Received| {
        let text = String::from_utf8_lossy(received.payload()).into_owned();
        // Nobody listens any more once the program ends.
        let _ = warning.send(text);
    };
    sensor
        .on_message("warnings/#", QoS::AtLeastOnce, on_warning)
        .await?;

    for (topic, reading) in [("plant/1/celsius", "21.5"), ("plant/2/celsius", "80.2")] {
        let reason = sensor.publish(topic, reading).qos(QoS::AtLeastOnce).await?;
        println!("sensor   sends {topic} {reading}: {}", reason.text());
    }
    watch(&display, readings).await?;
    if let Ok(warning) = warnings.recv() {
        println!("sensor   is told: {warning}");
    }
    sensor.disconnect().await?;
    display.disconnect().await
}

/// Shows two readings, and warns of the hot one.
async fn watch(display: &Client, mut readings: Subscription) -> Result<(), ClientError> {
    for _ in 0..2 {
        let Some(reading) = readings.next().await else {
            break;
        };
        let value = String::from_utf8_lossy(reading.payload());
        let was = reading.user_properties().find(|(name, _)| *name == "was");
        println!(
            "display  {} {value} (was {})",
            reading.topic(),
            was.map_or("", |(_, topic)| topic)
        );
        if value.parse().is_ok_and(|fahrenheit: f64| fahrenheit > 150.0) {
            let plant = reading.topic().split('/').nth(1).unwrap_or_default();
            let text = format!("plant {plant} is too hot");
            display
                .publish("warnings/heat", &text)
                .qos(QoS::AtLeastOnce)
                .await?;
        }
    }
    readings.unsubscribe().await?;
    Ok(())
}
