"""The parts that every service is built from: server, client, database, outbox, inbox, process.

It knows no resource noun: nothing here may import a service or the public package.
"""
