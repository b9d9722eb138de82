"""A ClientApp in the form of Flower's quickstart."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.quickstart.task import Net, load_data
from benchmarks.quickstart.task import train as train_fn
from flower_ist import fit

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    model = fit(Net(), msg)
    partition = int(context.node_config["partition-id"])
    partitions = int(context.node_config["num-partitions"])
    data, _ = load_data(partition, partitions, str(context.run_config["data"]))
    epochs = int(context.run_config["local-epochs"])
    loss = train_fn(model, data, epochs, msg.content["config"]["lr"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(data[1])})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)
