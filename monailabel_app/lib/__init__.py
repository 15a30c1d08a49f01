"""The rooms of the app: the shared engine, the requests of every client, the tasks, DICOM, and the server's guards."""
