"""What every service is built with: server, client, database, outbox, inbox and process kits.

It knows no resource noun: nothing here may import a service or the public package.
"""
