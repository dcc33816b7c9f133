"""Brings a Metabase to what the files in metabase/specs say: connection, metadata, questions, dashboards.

specs reads the files, render makes Metabase's payloads of them (both pure), rest speaks to the server, server waits,
signs in and connects the database, contents writes what people see, provision puts it together.
"""
