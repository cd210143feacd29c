"""Tables with changelogs: stores on this machine, restored from Kafka."""
